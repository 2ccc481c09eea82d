"""From names and files to models, processors, pictures and prompts."""
