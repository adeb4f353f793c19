"""A Celery application whose tasks return a checksum, their pid and the live blocks."""
import os

import ledger
from celery_files import application

app = application(polling_interval=0.05, worker_max_tasks_per_child=60,
                  worker_prefetch_multiplier=4, worker_hijack_root_logger=False)


@app.task(name='work')
def work(number):
    rows = [{str(n): [n] * (n % 60), 'text': 'x' * (n % 300)} for n in range(300)]
    kept = sum(len(row[str(n)]) + len(row['text']) for n, row in enumerate(rows))
    return [number, kept, os.getpid(), ledger.live()]


def ask(count):
    """Sends `count` tasks and prints their results."""
    import json
    sent = [work.delay(n) for n in range(count)]
    print(json.dumps([each.get(timeout=120, interval=0.05) for each in sent]))


if __name__ == '__main__':
    import sys
    ask(int(sys.argv[1]))
