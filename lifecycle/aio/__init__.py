"""Support asyncio code: tasks that end, a watchdog for stalls, a rate limiter."""
