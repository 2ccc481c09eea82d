"""An OpenAI-compatible server: pictures in, few visual tokens to the language model, its answer out."""
