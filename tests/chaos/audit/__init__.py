"""Record every call to a deployment with its answer, and check the history of each request.

    python -m tests.chaos.audit http://127.0.0.1:8000 http://127.0.0.1:8001 --secs 60

- `history`: what is recorded, and its file. `recorder`: makes the calls and records them.
- `load`: the clients. `asked`: what they ask for, and which text that may give.
- `checker`: a history in, violations out; pure. Its rules are in `ends`, `texts`, `codes` and `counts`.
- `report`: what the command prints.
"""
