streamproc: STREAMPROC_CACHE: /proc/x/kafka cannot be made: No such file or directory
