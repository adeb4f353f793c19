"""A Celery application whose messages and results are files."""
import json

from celery_files import application
from who import who

app = application(polling_interval=0.1)


@app.task(name='who')
def ask():
    return who()


if __name__ == '__main__':
    print(json.dumps([each.get(timeout=90, interval=0.1) for each in [ask.delay() for _ in range(8)]]))
