// Format numbers, durations and ids for people.

const grouped = new Intl.NumberFormat("en");

export const number = (value) => grouped.format(value);

export function duration(secs) {
  if (secs === null || secs === undefined) return "";
  const whole = Math.max(0, Math.floor(secs));
  const two = (value) => String(value).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${two(whole % 60)} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} m`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

/** Format a duration that is often shorter than a second. */
export function shortDuration(secs) {
  if (secs === null) return "";
  if (secs < 1) return `${(Math.max(0, secs) * 1000).toFixed(0)} ms`;
  return secs < 60 ? `${secs.toFixed(1)} s` : duration(secs);
}

export const time = (unixSecs) => new Date(unixSecs * 1000).toLocaleTimeString("en-GB");

export function moment(unixSecs) {
  const [day, clock] = new Date(unixSecs * 1000).toISOString().split("T");
  return `${day} ${clock.replace("Z", "")} UTC`;
}

/** Remove the role from a replica's id, in columns whose name shows the role. */
export const short = (replica) => (replica ?? "").replace(/^(frontend|worker)-/, "");
