"""`python -m ox_otel [options] app.py ARGS`: run a program unchanged, profiled."""

from ox_otel._command import main

if __name__ == "__main__":
    main()
