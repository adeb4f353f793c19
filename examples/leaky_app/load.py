"""Visitors for app.py, each of them new: start page, search, and now and then new prices.

    python3 load.py [SECONDS [PORT]]        60 seconds and port 8000 by default
"""
import http.client
import itertools
import sys
import time


def visit(port, number):
    """One visitor's requests."""
    requests = [('GET', '/'), ('GET', '/search?q=a+%d+hat' % number)]
    if number % 100 == 0:
        requests.append(('POST', '/rules'))
    for method, path in requests:
        connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
        connection.request(method, path, headers={'User-Agent': 'load.py'})
        connection.getresponse().read()
        connection.close()
    return len(requests)


def main():
    seconds, port = map(int, sys.argv[1:] + ['60', '8000'][len(sys.argv) - 1:])
    until, made = time.monotonic() + seconds, 0
    for number in itertools.count(int(time.time() * 1000)):     # other ones in each run
        try:
            made += visit(port, number)
        except (OSError, http.client.HTTPException) as error:
            sys.exit('no answer on port %d: %s' % (port, error))
        if time.monotonic() > until:
            break
    print('%d requests' % made)


if __name__ == '__main__':
    main()
