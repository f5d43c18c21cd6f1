// Stream with the openai package for Node.js, and cancel the request by its id at another frontend.
//
//   (cd examples && npm install) && node examples/openai_node.mjs [http://localhost:8000 http://localhost:8001]

import OpenAI from "openai";

const [here, there] = process.argv.length > 3 ? process.argv.slice(2) : ["http://localhost:8000", "http://localhost:8001"];
const client = new OpenAI({ baseURL: here + "/v1", apiKey: "-" });

// An idempotency key makes the package's own retries safe: they attach to the same request.
const { data: stream, response } = await client.chat.completions
  .create(
    {
      model: "echo",
      stream: true,
      messages: [{ role: "user", content: "the quick brown fox jumps over the lazy dog" }],
      echo_repeat: 1000, // a parameter of the echo engine: how often it repeats the prompt
    },
    { headers: { "Idempotency-Key": crypto.randomUUID() } },
  )
  .withResponse();
const requestId = response.headers.get("x-request-id");

let text = "", asked = false;
try {
  for await (const chunk of stream) {
    text += chunk.choices[0].delta.content ?? "";
    if (text.length > 20 && !asked) {
      asked = true;
      console.log(`${requestId}: ${JSON.stringify(text)}`);
      const other = new OpenAI({ baseURL: there + "/v1", apiKey: "-" });
      const record = await other.post(`/requests/${requestId}/cancel`, { body: { wait_ms: 5000 } });
      console.log("cancelled:", record.status);
    }
  }
} catch (error) {
  if (!(error instanceof OpenAI.APIError)) throw error;
  console.log("the stream ended with:", error.message);
}
