// Make one call of the client, and print what comes of it, each on a line of JSON: `{value}` or, of a stream, `{event}`,
// then `{end}` or `{error}`. The argument is { urls, client, method, args } with leaveAfter or abortAfter (events), or abortAfterMs.
// The tests run it in Node.js; in a browser they run `perform`.

export async function perform({ LifecycleClient }, spec, print) {
  const { urls, client = {}, method, args = [], abortAfter, abortAfterMs, leaveAfter } = spec;
  const stopping = new AbortController();
  const options = args.at(-1);
  if (abortAfter ?? abortAfterMs) args[args.length - 1] = { ...options, signal: stopping.signal };
  if (abortAfterMs) setTimeout(() => stopping.abort(new Error("enough")), abortAfterMs);
  let stream;
  try {
    const result = new LifecycleClient({ urls, ...client })[method](...args);
    if (Symbol.asyncIterator in result) {
      stream = result;
      let count = 0;
      for await (const event of stream) {
        await print({ event, requestId: stream.requestId });
        count += 1;
        if (count === abortAfter) stopping.abort(new Error("enough"));
        if (count === leaveAfter) break;
      }
    } else {
      await print({ value: await result });
    }
    await print({ end: true, requestId: stream?.requestId, lastEventId: stream?.lastEventId });
  } catch (error) {
    const { name, message, status, code, type, param, errorType, requestId, lastEventId } = error;
    await print({ error: { name, message, status, code, type, param, errorType, requestId, lastEventId } });
  }
}

if (globalThis.process?.argv) {
  const spec = JSON.parse(process.argv[2]);
  await perform(await import("lifecycle-tracker-client"), spec, (line) => console.log(JSON.stringify(line)));
}
