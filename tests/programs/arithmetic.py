"""A module beside the scripts, which imports multiprocessing too."""

import multiprocessing as mp

remembered = None


def add(a, b):
    return a + b


def cube(x):
    return x**3


def calculate(function, *args):
    return f"{function.__name__}{args} = {function(*args)} in a child: {mp.parent_process() is not None}"


def divide(a, b):
    return a / b


def reciprocal(x):
    return 1 / x


def remember(value):
    global remembered
    remembered = value


def recall(_):
    return remembered
