import type { LifecycleError } from "./errors.js";

/** How often a call is repeated, and how long to wait between. */
export interface RetryOptions {
  /** The number of tries that may fail one after the other, beside the first; 8 by default. */
  maxRetries?: number;
  /** The wait once all replicas have failed; it doubles each time; 250 ms by default. */
  baseDelayMs?: number;
  /** The longest wait; 5 s by default. A Retry-After may ask for more; more than a minute ends the tries. */
  maxDelayMs?: number;
}

const LONGEST_RETRY_AFTER_MS = 60_000;

/** The replicas of one client, of which all its calls prefer the one that worked last. */
export class Replicas {
  readonly urls: readonly string[];
  #preferred = 0;

  constructor(urls: readonly string[]) {
    if (urls.length === 0) throw new TypeError("urls must name at least one replica");
    this.urls = urls.map((url) => url.replace(/\/+$/, ""));
  }

  get preferred(): string {
    return this.urls[this.#preferred] ?? "";
  }

  /** Prefer the next replica, unless this one is not preferred any more. */
  leave(url: string): void {
    if (url === this.preferred) this.#preferred = (this.#preferred + 1) % this.urls.length;
  }
}

/** Counts the failures of one call or stream since it last succeeded, and chooses the replica for the next try. */
export class Tries {
  #failures = 0;
  #waits = 0;
  #retryAfterMs = 0;
  #tried = new Set<string>(); // since the last wait

  constructor(
    readonly replicas: Replicas,
    readonly options: Required<RetryOptions>,
    readonly signal?: AbortSignal,
  ) {}

  succeeded(): void {
    [this.#failures, this.#waits, this.#retryAfterMs] = [0, 0, 0];
    this.#tried.clear();
  }

  /**
   * Note a failure of a replica, and return when the next one is to be tried: at once, or after a wait when all have
   * failed. Throws the failure if no retries are left, and the signal's reason once it is aborted.
   */
  async failed(url: string, failure: LifecycleError): Promise<void> {
    this.signal?.throwIfAborted();
    this.#failures += 1;
    const retryAfterMs = failure.retryAfterMs ?? 0;
    if (this.#failures > this.options.maxRetries || retryAfterMs > LONGEST_RETRY_AFTER_MS) throw failure;
    this.replicas.leave(url);
    this.#tried.add(url);
    this.#retryAfterMs = Math.max(this.#retryAfterMs, retryAfterMs);
    if (failure.status !== 429 && !this.#tried.has(this.replicas.preferred)) return;
    const backOffMs = Math.min(this.options.maxDelayMs, this.options.baseDelayMs * 2 ** this.#waits);
    const jitteredMs = backOffMs * (0.5 + Math.random() / 2);
    await sleep(Math.max(jitteredMs, this.#retryAfterMs), this.signal);
    this.#waits += 1;
    this.#retryAfterMs = 0;
    this.#tried.clear();
  }
}

function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}
