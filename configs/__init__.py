"""One study a file: `get_config()` on the shared base, and `sweep(add)` where it is a grid."""
