import { IntegrityError } from "./errors.js";
import { type EventId, formatEventId, START } from "./event_id.js";

/**
 * Knows what of a stream has been delivered, and checks what each connection brings: its numbers follow each other, and
 * attempts only grow. So nothing is delivered twice, and nothing behind a gap.
 *
 * Events without an id come at the end (the finish reason, the usage). A connection that is opened behind the last id
 * brings them again, in the same order; therefore they are counted.
 */
export class Position {
  #last: EventId; // the last event that was delivered
  #before: EventId; // the position before it
  #unnumbered = 0; // the events without an id that were delivered behind it
  #read: EventId; // how far the connection of now has been read
  #repeated = 0; // the events without an id that this connection will bring again

  constructor(after: EventId = START) {
    this.#last = this.#read = after;
    this.#before = after.number > 1 ? { attempt: after.attempt, number: after.number - 1 } : START;
  }

  get last(): EventId {
    return this.#last;
  }

  /** Begin to read a connection that was opened behind the last event, and return that position. */
  reopen(): EventId {
    this.#repeated = this.#unnumbered;
    return (this.#read = this.#last);
  }

  /** Begin to read a connection that brings the last event again, and return where to open it. */
  rewind(): EventId {
    this.#repeated = this.#unnumbered;
    return (this.#read = this.#before);
  }

  /** Note that a number of this connection has no event of its own. */
  skip(id: EventId): void {
    if (id.number === this.#read.number + 1) this.#read = id;
  }

  /** Take the next event of the connection; return whether it is new. Throws IntegrityError. */
  take(id: EventId | null): boolean {
    if (id === null) {
      if (this.#repeated > 0) {
        this.#repeated -= 1;
        return false;
      }
      this.#unnumbered += 1;
      return true;
    }
    const read = this.#read;
    if (id.number <= read.number) throw this.#error("repeats or reorders events", id);
    if (id.number > read.number + 1) throw this.#error("has a gap", id);
    if (id.attempt < read.attempt) throw this.#error("goes back to an earlier attempt", id);
    this.#read = id;
    if (id.number < this.#last.number) return false;
    if (id.number === this.#last.number) {
      if (id.attempt !== this.#last.attempt) throw this.#error("has another event than before", id);
      return false;
    }
    this.#before = this.#last;
    this.#last = id;
    this.#unnumbered = this.#repeated = 0;
    return true;
  }

  #error(what: string, id: EventId): IntegrityError {
    const ids = `the event ${formatEventId(id)} came behind ${formatEventId(this.#read)}`;
    return new IntegrityError(`The stream ${what}: ${ids}`, { lastEventId: formatEventId(this.#last) });
  }
}
