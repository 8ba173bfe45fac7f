"""The line of code that saves changed arrays as a data set."""


def save_line(x: str = "{}", y: str = "{}", entry: str = "") -> str:
    """Return the line `np.savez('data.npz', x_train=..., ...)`; in `x` and `y`, `{}` stands for the array's name.

    Of several inputs, only the arrays of the input named `entry` are changed.
    """
    if entry:
        names = [f"x_{part}/{entry}" for part in ("train", "test")]
        changes = "; ".join(f"a[{name!r}] = {x.format(f'a[{name!r}]')}" for name in names)
        return f"a = dict(np.load('data.npz')); {changes}; np.savez('data.npz', **a)"
    changed = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
    arrays = ", ".join(f"{name}={change.format(name)}" for name, change in changed.items())
    return f"np.savez('data.npz', {arrays})"
