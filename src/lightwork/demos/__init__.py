"""Examples that run as they stand; they use public names only. ``lightwork demo`` lists them."""

from __future__ import annotations

__all__ = ["DEMOS"]

DEMOS = {
    "list-with-lock": "one thread adds to a list, another removes, and nothing is lost",
    "factorials": "a pool of threads, results in order",
    "squares": "the time that pools of 2, 4 and 8 workers take",
    "primes": "uneven ranges, searched by all cores",
    "monte-carlo": "random numbers that do not depend on the number of workers",
    "scrape": "many pages at once, from a site that the demo serves",
    "split-apply-combine": "a data set in pieces, of which only some are in memory",
    "source-files": "hash and count all source files of the installed Python",
    "sharing-lock": "one at a time; what is lost without it",
    "sharing-rlock": "guarded methods that call each other",
    "sharing-condition": "taking turns, without asking again and again",
    "sharing-event": "all wait for the settings, one tells them",
    "sharing-semaphore": "at most two at a time are connected",
    "sharing-barrier": "nobody goes on before all have come",
    "sharing-queue": "one hands work over, several take it",
    "sharing-pipe": "a conversation of two",
    "sharing-list": "a list of jobs that all take from and add to",
    "sharing-dict": "all count words in one table",
    "sharing-value": "the best result that anyone has found so far",
    "sharing-counter": "all add to one number, without a lock",
    "sharing-array": "memory that all workers see, and that is never copied",
    "errors-in-thread": "an error handled where it happens",
    "errors-to-caller": "an error handed to the caller, with all that is known",
    "errors-event": "one fails, and an event lets the others stop",
    "errors-queue": "errors reported over a queue while the work goes on",
    "errors-callback": "errors told to a callback",
    "errors-list": "all errors in one shared list, by hand and by the pool",
    "errors-logging": "errors logged in one place",
    "errors-orderly-stop": "the first error stops the rest in order",
    "errors-timeouts": "time limits that end the very task, and retries",
}
"""Their names, and what each shows. ``source-files`` is in the module ``source_files``; so all."""
