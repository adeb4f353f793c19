"""A Celery application without a server: messages and results are files of TASKS_FOLDER."""
import os

import celery

FOLDER = os.environ['TASKS_FOLDER']


def application(polling_interval, **settings):
    for name in 'queue', 'results', 'control':
        os.makedirs(os.path.join(FOLDER, name), exist_ok=True)
    app = celery.Celery('tasks', broker='filesystem://', backend='file://' + FOLDER + '/results')
    app.conf.update(
        broker_transport_options={'data_folder_in': FOLDER + '/queue',
                                  'data_folder_out': FOLDER + '/queue',
                                  'control_folder': FOLDER + '/control',
                                  'polling_interval': polling_interval},
        broker_connection_retry_on_startup=True, **settings)
    return app
