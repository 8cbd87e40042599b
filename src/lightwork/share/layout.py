"""Where things are in a family's file. Numbers only.

::

    header                 a page: who made it, counts, where the next extent goes
    processes              one entry for each process that takes part
    threads                one slot for each thread that ever waited
    records                one for each shared object, and for each mutex inside of one
    states                 one byte a record: is it in use
    marks                  one byte for each process and record, written by that process alone
    locals                 one semaphore for each process and mutex, for its threads
    extents ...            memory of objects that need more than a record; never at the same
                           place twice, and a hole once they are free

All of it is sparse: what nobody has touched costs nothing but addresses. Words are 64 bits wide,
in the order of the machine's bytes. A word is written and read in one piece.
"""

from __future__ import annotations

# How many at most, at a time.
PROCESSES = 1024
THREADS = 8192
RECORDS = 1 << 17

# The header, in words; the first four are `wire.family.HEAD`.
H_FAMILY, H_PID, H_FD = 1, 2, 3
H_NEXT_EXTENT = 4  # bytes from the start of the file; 0 before the first
H_PROCESSES, H_THREADS = 5, 6  # entries and slots that were ever used
H_GENERATION = 7  # of the latest record
H_RECORD_HINT = 8  # where to look for a free record first
H_SWEPT, H_COLLECTED = 9, 10  # when; see commons.py
H_RECORDS = 11  # records that were ever used
HEADER_BYTES = 4096

# A process, in words.
P_STATE, P_PID, P_START, P_LEFT, P_SINCE = 0, 1, 2, 3, 4
P_WORDS = 8
P_FREE, P_LIVE, P_FORKING = 0, 1, 2  # P_STATE. FORKING: P_PID and P_START are the parent's

# A thread, in words. Texts are UTF-8, ended by a zero byte.
T_STATE, T_PROCESS, T_WAITS, T_FLAGS, T_SEQUENCE, T_SLICES = 0, 1, 2, 3, 4, 5
T_TICKET, T_RUNG, T_PARKED, T_PUBLISHED = 6, 7, 8, 9
T_BELL = 12  # a semaphore
T_HOLDS, T_MOST_HELD = 16, 14  # the records of the locks that it holds, ended by a zero
T_WHERE, T_NAME, T_TASK = 30, 46, 54
T_WHERE_BYTES, T_NAME_BYTES, T_TASK_BYTES = 128, 64, 80
T_WORDS = 64
T_FREE, T_USED, T_ENDED = 0, 1, 2  # T_STATE
F_DOOR, F_TIMED, F_FIRM = 1, 2, 4  # T_FLAGS; see waiting.py

# A record, in words.
R_GENERATION, R_KIND, R_PARENT, R_TICKETS, R_FLIGHT = 0, 1, 2, 3, 4
R_EXTENT, R_SIZE = 5, 6
R_CHILDREN, R_MOST_CHILDREN = 7, 3
R_FIRST, R_OPENED, R_OPENED_TOO, R_STRAY = 10, 11, 12, 13  # pickles on their way: see flights.py
R_SEM = 14
R_VERSION, R_DEAD, R_NOTED, R_NOTED_AT, R_FACE = 18, 19, 20, 21, 22  # a mutex's
# Which process left it behind, and lives on (else 0); the name of its thread that ended, if any.
R_LEFT_PID, R_LEFT_BY, R_LEFT_BY_BYTES = 23, 24, 32
FACES = ("", "Lock", "RLock")  # R_FACE: what the user knows it as
R_OWN, R_OWN_WORDS = 14, 14  # what the object keeps here (a mutex: the words above)
R_NAME, R_NAME_BYTES = 28, 32
R_WORDS = 32

M_NONE, M_USES = 0, 1  # a mark

PROCESSES_AT = HEADER_BYTES
THREADS_AT = PROCESSES_AT + PROCESSES * P_WORDS * 8
RECORDS_AT = THREADS_AT + THREADS * T_WORDS * 8
STATES_AT = RECORDS_AT + RECORDS * R_WORDS * 8
MARKS_AT = STATES_AT + RECORDS
LOCALS_AT = MARKS_AT + PROCESSES * RECORDS
LOCAL_BYTES = 32
EXTENTS_AT = LOCALS_AT + PROCESSES * RECORDS * LOCAL_BYTES
