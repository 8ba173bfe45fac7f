"""The line of code that saves changed arrays as a data set."""


def save_line(x: str = "{}", y: str = "{}") -> str:
    """Return the line `np.savez('data.npz', x_train=..., ...)`; in `x` and `y`, `{}` stands for the array's name."""
    changes = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
    arrays = ", ".join(f"{name}={change.format(name)}" for name, change in changes.items())
    return f"np.savez('data.npz', {arrays})"
