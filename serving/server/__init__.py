"""A bundle behind HTTP: `make serve`, or `python -m serving.server models/bundle`.

settings     what may be set, by flags and by the environment
batching     images of all requests, gathered for the networks
service      from bytes to answers: decoding, batching, what was measured
limits       what a request may cost, before anything reads it
connections  how long a connection may take over its headers
refusals     every answer that is none, as JSON
answers      what is answered, as JSON
routes       the API; protocol: the Open Inference Protocol, version 2
app          all of it together
"""
