"""A Celery application without a server: messages and results are files."""
import os

import celery

import ledger

FOLDER = os.environ['TASKS_FOLDER']
for name in 'queue', 'results', 'control':
    os.makedirs(os.path.join(FOLDER, name), exist_ok=True)

app = celery.Celery('tasks', broker='filesystem://', backend='file://' + FOLDER + '/results')
app.conf.update(
    broker_transport_options={'data_folder_in': FOLDER + '/queue',
                              'data_folder_out': FOLDER + '/queue',
                              'control_folder': FOLDER + '/control', 'polling_interval': 0.05},
    worker_max_tasks_per_child=60, worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)


@app.task(name='work')
def work(number):
    rows = [{str(n): [n] * (n % 60), 'text': 'x' * (n % 300)} for n in range(300)]
    kept = sum(len(row[str(n)]) + len(row['text']) for n, row in enumerate(rows))
    return [number, kept, os.getpid(), ledger.live()]


def ask(count):
    """Sends so many tasks; prints what came back."""
    import json
    sent = [work.delay(n) for n in range(count)]
    print(json.dumps([each.get(timeout=120, interval=0.05) for each in sent]))


if __name__ == '__main__':
    import sys
    ask(int(sys.argv[1]))
