/*
 * What gives one process a wrong clock: preloaded, it adds a shift to the wall clock that everything in it reads.
 *
 * Python, librdkafka and the JVM alike ask libc, so all of them are reached. The shift is a number of nanoseconds in a
 * file named after the process, mapped here: whoever writes it there steps the clock of the running process. The
 * monotonic clock stays true, as it does when an operator or NTP sets a machine's time.
 *
 * Waits until a moment of the wall clock notice a step as the kernel's do: set back, they go on for as much longer; set
 * forward, they are over. So they are cut into slices, with a look at the clock between two of them. A signal that falls
 * in between reaches nobody and is counted: whoever counts one more than before stops waiting.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>
#include <errno.h>

#define SECOND 1000000000LL
#define SLICE (50 * SECOND / 1000)
/* No machine has been up for thirty years: an earlier moment is one of the monotonic clock. */
#define WALL_SECONDS_MIN 1000000000LL

static _Atomic int64_t no_shift;
static _Atomic int64_t *shift = &no_shift;
static int (*next_clock_gettime)(clockid_t, struct timespec *);
static int (*next_signal)(pthread_cond_t *);
static int (*next_broadcast)(pthread_cond_t *);

__attribute__((constructor)) static void begin(void) {
    next_signal = (int (*)(pthread_cond_t *))dlsym(RTLD_NEXT, "pthread_cond_signal");
    next_broadcast = (int (*)(pthread_cond_t *))dlsym(RTLD_NEXT, "pthread_cond_broadcast");
    next_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *directory = getenv("CHAOS_CLOCKS");
    char path[4096];
    if (!directory || snprintf(path, sizeof path, "%s/%d", directory, (int)getpid()) >= (int)sizeof path) {
        return;
    }
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0) {
        return;
    }
    if (ftruncate(file, sizeof *shift) == 0) {
        void *mapped = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
        if (mapped != MAP_FAILED) {
            shift = mapped;
        }
    }
    close(file);
}

static int64_t nanoseconds(const struct timespec *at) {
    return at->tv_sec * SECOND + at->tv_nsec;
}

static struct timespec moment(int64_t at) {
    return (struct timespec){.tv_sec = at / SECOND, .tv_nsec = at % SECOND};
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int failed = next_clock_gettime ? next_clock_gettime(clock, at) : (int)syscall(SYS_clock_gettime, clock, at);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        *at = moment(nanoseconds(at) + *shift);
    }
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    if (!failed) {
        at->tv_sec = now.tv_sec;
        at->tv_usec = now.tv_nsec / 1000;
    }
    return failed;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) {
        *at = now.tv_sec;
    }
    return now.tv_sec;
}

int timespec_get(struct timespec *at, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, at) == 0 ? base : 0;
}

static _Atomic uint64_t signals[1024];

static _Atomic uint64_t *signals_of(const void *condition) {
    return &signals[((uintptr_t)condition >> 4) % (sizeof signals / sizeof *signals)];
}

int pthread_cond_signal(pthread_cond_t *condition) {
    ++*signals_of(condition);
    return next_signal(condition);
}

int pthread_cond_broadcast(pthread_cond_t *condition) {
    ++*signals_of(condition);
    return next_broadcast(condition);
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    if (until->tv_sec < WALL_SECONDS_MIN) {
        return pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, until);
    }
    uint64_t seen = *signals_of(condition);
    for (;;) {
        struct timespec wall, monotonic;
        clock_gettime(CLOCK_REALTIME, &wall);
        clock_gettime(CLOCK_MONOTONIC, &monotonic);
        int64_t left = nanoseconds(until) - nanoseconds(&wall);
        struct timespec end = moment(nanoseconds(&monotonic) + (left < 0 ? 0 : left < SLICE ? left : SLICE));
        int answer = pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, &end);
        if (answer != ETIMEDOUT || left <= 0) {
            return answer;
        }
        if (*signals_of(condition) != seen) {
            return 0;
        }
    }
}

/* In glibc the types of C11 are the same under other names. */

int cnd_signal(cnd_t *condition) {
    return pthread_cond_signal((pthread_cond_t *)condition) == 0 ? thrd_success : thrd_error;
}

int cnd_broadcast(cnd_t *condition) {
    return pthread_cond_broadcast((pthread_cond_t *)condition) == 0 ? thrd_success : thrd_error;
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
    int answer = pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, until);
    return answer == 0 ? thrd_success : answer == ETIMEDOUT ? thrd_timedout : thrd_error;
}
