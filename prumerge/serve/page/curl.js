// The request as one would send it from a shell.

/** The line, whole. The body is what follows it: a shell takes arguments of 128 KiB, pictures are larger. */
export function line(base, body, keyed) {
  const key = keyed ? ` -H "Authorization: Bearer $PRUMERGE_API_KEY"` : "";
  const head = `curl -sN ${base}/v1/chat/completions -H "Content-Type: application/json"${key}`;
  return `${head} --data-binary @- <<'END'\n${JSON.stringify(body)}\nEND\n`;
}

/** The same to read, without what pictures are made of. */
export const brief = (text) => text.replace(/(base64,[\w+/=]{12})[\w+/=]+/g, "$1…");
