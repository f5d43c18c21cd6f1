import assert from "node:assert/strict";
import { test } from "node:test";

import { EventParser } from "../dist/event_parser.js";

const event = (data, id = null, name = null) => ({ kind: "event", id, name, data });

test("events are the same wherever the text is cut, and whatever ends its lines", () => {
  const text = '\uFEFFid: 1-1\ndata: {"a":1}\n\n: keepalive\n\nevent: x\ndata:b\ndata: c\n\nid: 1-2\n\ndata\n\n';
  const expected = [
    event('{"a":1}', "1-1"),
    { kind: "comment", text: "keepalive" },
    event("b\nc", null, "x"),
    event(""),
  ];
  for (const ending of ["\n", "\r\n", "\r"]) {
    const wire = text.replaceAll("\n", ending);
    for (let cut = 0; cut <= wire.length; cut++) {
      const parser = new EventParser();
      assert.deepEqual([...parser.push(wire.slice(0, cut)), ...parser.push(wire.slice(cut))], expected);
    }
    const parser = new EventParser();
    assert.deepEqual(
      [...wire].flatMap((character) => parser.push(character)),
      expected,
    );
  }
});

test("an event whose end has not come is no event", () => {
  assert.deepEqual(new EventParser().push('id: 1-1\ndata: {"a":1}\n'), []);
});

test("fields that are unknown, and ids with a zero character, are ignored", () => {
  assert.deepEqual(new EventParser().push("retry: 5\nid: 1\0\nother: y\ndata: a\n\n"), [event("a")]);
});

test("only the stream may begin with a byte order mark", () => {
  assert.deepEqual(new EventParser().push("data: a\n\n\uFEFFdata: b\ndata: c\n\n"), [event("a"), event("c")]);
});
