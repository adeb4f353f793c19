"""Forty threads that build and drop objects of all sizes, and then wait.

`threads=1` does the same work sequentially in a single thread. The difference is the memory
that an allocator keeps for each thread, besides its stack.
"""

import threading

import pattern

WORKERS = 40
SIZES = list(range(16, 513, 16)) + [768, 1024, 1500, 2048, 3000, 4096, 6000, 8192]
HEAD = 33       # of a bytes object


def churn(settings):
    """Objects of all sizes, built and dropped; returns a checksum."""
    total = 0
    for turn in range(settings.scaled(20)):
        for size in SIZES:
            many = max(4, min(300, 100000 // size))
            made = [bytes(max(1, size - HEAD)) for _ in range(many)]
            made += [(turn, size, one) for one in range(many // 4)]
            total += len(made)
    return total


def all_at_once(settings, answers):
    """Starts the work in threads, which wait for the returned event at their end."""
    start, end = threading.Barrier(WORKERS), threading.Event()
    done = threading.Barrier(WORKERS + 1)

    def work():
        start.wait()
        answers.append(churn(settings))
        done.wait()
        end.wait()

    for _ in range(WORKERS):
        threading.Thread(target=work, daemon=True).start()
    done.wait()
    return end


def main():
    settings = pattern.Settings(threads=WORKERS)
    figures = pattern.begin()
    answers = []
    if settings.threads == 1:
        answers += [churn(settings) for _ in range(WORKERS)]
        end = threading.Event()
    else:
        end = all_at_once(settings, answers)
    pattern.idle(figures, settings)
    end.set()
    pattern.report(figures, answers == [churn(settings)] * WORKERS)


main()
