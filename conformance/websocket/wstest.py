# The original Autobahn test suite (Python 2) on the loopback interface alone.
from twisted.internet import reactor

listen_tcp, listen_ssl = reactor.listenTCP, reactor.listenSSL


def tcp(port, factory, backlog=50, interface=""):
    return listen_tcp(port, factory, backlog, "127.0.0.1")


def ssl(port, factory, context, backlog=50, interface=""):
    return listen_ssl(port, factory, context, backlog, "127.0.0.1")


reactor.listenTCP, reactor.listenSSL = tcp, ssl

from autobahntestsuite import wstest

wstest.run()
