"""A Celery application whose messages and results are files."""
import json
import os

import celery

from who import who

FOLDER = os.environ['TASKS_FOLDER']
for name in 'queue', 'results', 'control':
    os.makedirs(os.path.join(FOLDER, name), exist_ok=True)

app = celery.Celery('tasks', broker='filesystem://', backend='file://' + FOLDER + '/results')
app.conf.update(
    broker_transport_options={'data_folder_in': FOLDER + '/queue',
                              'data_folder_out': FOLDER + '/queue',
                              'control_folder': FOLDER + '/control', 'polling_interval': 0.1},
    broker_connection_retry_on_startup=True)


@app.task(name='who')
def ask():
    return who()


if __name__ == '__main__':
    print(json.dumps([each.get(timeout=90, interval=0.1) for each in [ask.delay() for _ in range(8)]]))
