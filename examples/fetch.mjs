// Stream with the fetch of Node.js, lose the connection, resume at another frontend, and cancel there.
//
//   node examples/fetch.mjs [http://localhost:8000 http://localhost:8001]

const [here, there] = process.argv.length > 3 ? process.argv.slice(2) : ["http://localhost:8000", "http://localhost:8001"];

// Yield the events of a response as { id, data }. Comments are skipped.
async function* events(response) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of response.body) {
    const blocks = (rest + decoder.decode(bytes, { stream: true })).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const field = (name) => block.split("\n").find((line) => line.startsWith(name + ": "))?.slice(name.length + 2);
      if (field("data") !== undefined) yield { id: field("id"), data: field("data") };
    }
  }
}

const lost = new AbortController();
const response = await fetch(here + "/v1/chat/completions", {
  method: "POST",
  signal: lost.signal,
  headers: { "Idempotency-Key": crypto.randomUUID(), "X-Disconnect-Grace-Secs": "30" },
  body: JSON.stringify({
    model: "echo",
    stream: true,
    messages: [{ role: "user", content: "the quick brown fox jumps over the lazy dog" }],
    echo_repeat: 1000, // a parameter of the echo engine: how often it repeats the prompt
  }),
});
const requestId = response.headers.get("x-request-id");

let text = "", lastId = "";
for await (const { id, data } of events(response)) {
  text += JSON.parse(data).choices[0].delta.content;
  lastId = id;
  if (text.length > 20) break;
}
lost.abort();
console.log(`${requestId}: ${JSON.stringify(text)} up to ${lastId}, and the connection is gone`);

const resumed = await fetch(`${there}/v1/requests/${requestId}/stream`, { headers: { "Last-Event-ID": lastId } });
let count = 0;
for await (const { data } of events(resumed)) {
  if (data === "[DONE]") break;
  const event = JSON.parse(data);
  if (event.error) {
    console.log("the stream ended with:", event.error.message);
    continue;
  }
  text += event.choices[0].delta.content;
  if (++count === 5) {
    console.log(`went on at the other frontend: ${JSON.stringify(text)}`);
    const answer = await fetch(`${there}/v1/requests/${requestId}/cancel?wait_ms=5000`, { method: "POST" });
    console.log("cancelled:", (await answer.json()).status);
  }
}
