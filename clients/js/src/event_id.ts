/** The id of an event: the worker's attempt, and the number of the event over all attempts, from 1. */
export interface EventId {
  attempt: number;
  number: number;
}

/** The position before the first event. */
export const START: EventId = { attempt: 0, number: 0 };

/** Return the id that the text stands for, `<attempt>-<number>`; null if it is malformed. */
export function parseEventId(text: string): EventId | null {
  const [attempt = NaN, number = NaN] = /^\d{1,15}-\d{1,15}$/.test(text) ? text.split("-").map(Number) : [];
  return Number.isNaN(attempt) || Number.isNaN(number) ? null : { attempt, number };
}

export function formatEventId({ attempt, number }: EventId): string {
  return `${attempt}-${number}`;
}

/** Return the position that an application names, the start by default. Throws TypeError. */
export function positionAt(after: string | null | undefined): EventId {
  const id = after == null || after === "" ? START : parseEventId(after);
  if (id === null) throw new TypeError(`after must be an event's id, <attempt>-<number>, not ${JSON.stringify(after)}`);
  return id;
}
