"""The run file: its schema, its atomic writer, its reader. The only modules that open HDF5."""

from feature_lens.store.kernel_file import kernel_file
from feature_lens.store.reader import RunFile
from feature_lens.store.schema import specification
from feature_lens.store.writer import check_apart, check_folder, check_writable, write_bytes, write_run

__all__ = [
    "RunFile",
    "check_apart",
    "check_folder",
    "check_writable",
    "kernel_file",
    "specification",
    "write_bytes",
    "write_run",
]
