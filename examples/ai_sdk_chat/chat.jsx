import { useChat } from "@ai-sdk/react";
import { createRoot } from "react-dom/client";

import { LifecycleTransport } from "./transport.js";

const model = new URLSearchParams(location.search).get("model") ?? "echo";
const frontends = ["/a", "/b"].map((path) => location.origin + path); // serve.mjs forwards to two frontends
const options = model === "echo" ? { echo_repeat: 40 } : {}; // the echo engine repeats the question
const transport = new LifecycleTransport(frontends, model, options);
const id = "chat";

function Chat() {
  const { messages, sendMessage, status, error } = useChat({
    id,
    messages: transport.kept(id).messages,
    resume: true,
    transport,
  });
  const answering = status === "submitted" || status === "streaming";

  function ask(form) {
    sendMessage({ text: form.get("question") });
  }

  return (
    <main data-status={status}>
      {messages.map((message) => (
        <p key={message.id} className={message.role}>
          {message.parts.map((part) => (part.type === "text" ? part.text : ""))}
        </p>
      ))}
      {error && <p className="error">{error.message}</p>}
      <form action={ask}>
        <input name="question" required disabled={answering} placeholder="Ask, and reload while the answer comes" />
        {answering ? (
          <button type="button" onClick={() => transport.stop(id)}>Stop</button>
        ) : (
          <button>Ask</button>
        )}
      </form>
    </main>
  );
}

createRoot(document.getElementById("root")).render(<Chat />);
