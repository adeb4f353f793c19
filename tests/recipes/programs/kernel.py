"""Runs a cell in a kernel of a Jupyter server; prints the output of the cell.

    kernel.py CONNECTION_FILE FOLDER_OF_WHO
"""
import queue
import sys
import time

from jupyter_client import BlockingKernelClient

client = BlockingKernelClient(connection_file=sys.argv[1])
client.load_connection_file()
client.start_channels(hb=False)     # on a busy machine a late heartbeat is no death
client.kernel_info(reply=True, timeout=90)
until, printed = time.time() + 90, False
while not printed and time.time() < until:
    # Repeated without an output: the channel of outputs may have been joined too late.
    request = client.execute('import sys, json; sys.path.insert(0, %r); from who import who\n'
                             'print(json.dumps(who()))' % sys.argv[2])
    try:
        while not printed:
            message = client.get_iopub_msg(timeout=15)
            if message['parent_header'].get('msg_id') != request:
                continue
            if message['msg_type'] == 'error':
                sys.exit('\n'.join(message['content']['traceback']))
            if message['msg_type'] == 'stream':
                print(message['content']['text'], end='')
                printed = True
    except queue.Empty:
        pass
client.stop_channels()
sys.exit(not printed)
