"""The networks of `bench.runtimes`: a module for each backend, with `write_resnet50`, which makes a file, and `load`,
which gives what executes one with one thread.
"""
