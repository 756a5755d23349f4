"""``producer chaos``: work on a fleet while its parts are killed, and a ledger of what became of it."""
