// Build the page with esbuild, serve it, and pass the calls under /a and /b on to two frontends, so that no CORS is needed.
//
//   [PORT=3000] npm start [http://localhost:8000 http://localhost:8001]

import { readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { pipeline } from "node:stream";

import { build } from "esbuild";

const folder = import.meta.dirname;
const [a, b] = process.argv.length > 3 ? process.argv.slice(2) : ["http://localhost:8000", "http://localhost:8001"];
const built = await build({
  absWorkingDir: folder,
  entryPoints: ["chat.jsx"],
  bundle: true,
  minify: true,
  write: false,
  format: "esm",
  jsx: "automatic",
  define: { "process.env.NODE_ENV": '"production"' },
});
const files = {
  "/": ["text/html; charset=utf-8", readFileSync(folder + "/index.html")],
  "/chat.js": ["text/javascript", built.outputFiles[0].contents],
};

// Forward a call without buffering. A connection that breaks on one side is closed on the other.
function forward(call, answer, url) {
  const upstream = request(url, { method: call.method, headers: call.headers }, (response) => {
    answer.writeHead(response.statusCode, response.headers);
    answer.flushHeaders();
    pipeline(response, answer, () => {});
  });
  upstream.on("error", () => (answer.headersSent ? answer.destroy() : answer.writeHead(502).end()));
  answer.on("close", () => upstream.destroy());
  call.pipe(upstream);
}

const server = createServer((call, answer) => {
  const path = call.url.split("?")[0];
  if (files[path]) answer.setHeader("Content-Type", files[path][0]).end(files[path][1]);
  else if (path.startsWith("/a/")) forward(call, answer, a + call.url.slice(2));
  else if (path.startsWith("/b/")) forward(call, answer, b + call.url.slice(2));
  else answer.writeHead(404).end();
});
server.listen(process.env.PORT ?? 3000, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
