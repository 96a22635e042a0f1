"""What several test files need."""
import time

def until(f,
    seconds=20, # How long it may take
    every=.05, # Seconds between two looks
):
    "What `f()` answers as soon as that counts as true; a failure when it takes too long."
    end = time.monotonic() + seconds
    while not (r := f()):
        assert time.monotonic() < end, 'it did not happen'
        time.sleep(every)
    return r
