"""readers.py FILE...: reads each file in every way that the kernel has, and says where two of them differ.

Each way opens the file anew. Of texts that change by themselves (times, ages) digits are taken for alike.
"""
import ctypes
import mmap
import os
import re
import shutil
import sys
import tempfile

LIBC = ctypes.CDLL(None, use_errno=True)


def opened(path):
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def by_read(path, size=65536):
    fd, text = opened(path), b""
    while piece := os.read(fd, size):
        text += piece
    os.close(fd)
    return text


def by_small_reads(path):
    return by_read(path, 7)


def by_pread(path):
    fd, text = opened(path), b""
    while piece := os.pread(fd, 1000, len(text)):
        text += piece
    os.close(fd)
    return text


def by_splice(path):
    fd, text = opened(path), b""
    end, start = os.pipe()
    while n := os.splice(fd, start, 65536):
        while n:
            piece = os.read(end, n)
            text += piece
            n -= len(piece)
    for each in fd, end, start:
        os.close(each)
    return text


def by_sendfile(path):
    fd = opened(path)
    with tempfile.TemporaryFile() as copy:
        while os.sendfile(copy.fileno(), fd, None, 1 << 24):
            pass
        os.close(fd)
        copy.seek(0)
        return copy.read()


def by_copyfile(path):
    with tempfile.TemporaryDirectory() as directory:
        shutil.copyfile(path, directory + "/copy")
        with open(directory + "/copy", "rb") as copy:
            return copy.read()


def by_copy_file_range(path):
    """As cp does it: where the kernel has no way between the two file systems, by read."""
    fd, text = opened(path), b""
    with tempfile.TemporaryFile() as copy:
        try:
            while os.copy_file_range(fd, copy.fileno(), 1 << 20):
                pass
        except OSError:
            os.close(fd)
            return by_read(path)
        os.close(fd)
        copy.seek(0)
        return copy.read()


def by_mmap(path):
    fd = opened(path)
    size = os.fstat(fd).st_size
    try:
        if size == 0:
            return b""
        with mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ) as pages:
            return pages[:]
    finally:
        os.close(fd)


def by_size(path):
    """As git and tar do it: as many bytes as the open file says that it has."""
    fd = opened(path)
    size = os.fstat(fd).st_size
    text = os.read(fd, size) if size else b""
    os.close(fd)
    return text


# what has no place in a file is not read from one: the kernel refuses, and programs go on with read
STREAM_WAYS = [by_read, by_small_reads, by_splice, by_copyfile, by_copy_file_range, by_mmap, by_size]
STREAMS = {"wait", "response"}
WAYS = [by_read, by_small_reads, by_pread, by_splice, by_sendfile, by_copyfile, by_copy_file_range, by_mmap, by_size]


def plain(text):
    """What passes with time is alike; a number may have another digit more."""
    return re.sub(rb"[0-9]+(\.[0-9]+)?", b"0", text)


def taken(way, path):
    try:
        return way(path)
    except OSError as error:
        return error


def main(paths):
    wrong = 0
    for path in paths:
        before = taken(by_read, path)
        for way in STREAM_WAYS if os.path.basename(path) in STREAMS else WAYS:
            text = taken(way, path)
            after = taken(by_read, path)  # a chart goes on meanwhile
            if isinstance(text, OSError) or all(
                    isinstance(read, OSError) or plain(text) != plain(read) for read in (before, after)):
                wrong += 1
                print(f"{path}: {way.__name__}: {text!r:.200} instead of {after!r:.200}")
            before = after
    print(f"{len(paths)} files, {len(WAYS)} ways, {wrong} differ")
    return 1 if wrong or not paths else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
