/* One growth episode of `benchmarks oom`: touches fresh anonymous memory at a given pace.
 *
 *     grow HOW SHAPE RATE_MIB_S BASE_MIB AMOUNT_MIB THREADS REPORT
 *
 * Holds BASE, creates REPORT and waits for SIGUSR1; then grows by AMOUNT, frees all of it and writes
 * {"seconds": ..., "stalls_ms": [...]} into REPORT.  SHAPE is
 *
 *     steady     RATE all the time
 *     staircase  eight jumps at 1 GiB/s, then pauses that make RATE the average, no shorter than the jump
 *     burst      nothing for 0.3 s, then RATE
 *
 * A stall is a chunk that took 1 ms longer to touch than chunks of the base did at the median.  Lateness of
 * more than 1 ms is not caught up: that would be growth beyond RATE.
 *
 * HOW is touch, or populate: the kernel then faults in a chunk by one call, through the same code and the same
 * charge, and a slow virtual machine can give the rate.  Not on v1: there only a fault from user space waits at
 * the limit (K11), any other fails.  grow.py does the same in Python.
 */

#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK_BYTES = 256 << 10, CHUNKS_PER_MIB = 4, MAX_CHUNKS = 1 << 16, STEPS = 8 };
static const double JUMP_MIB_S = 1024, IDLE_S = 0.3, STALL_S = 0.001;

static const char *shape;
static int populate;
static double rate_mib_s, amount_mib, typical_s, begun_s;
static long base_chunks, all_chunks, threads, page_bytes;
static volatile char *memory;
static double took_s[MAX_CHUNKS]; /* by chunk: each is written by one thread only */

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static void sleep_until(double at_s)
{
	struct timespec at = { (time_t)at_s, (long)((at_s - (time_t)at_s) * 1e9) };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static double longer(double a, double b)
{
	return a > b ? a : b;
}

/* Seconds from the signal to the moment when so much of AMOUNT shall be there. */
static double due_s(double mib)
{
	double step_mib = amount_mib / STEPS;
	long step = (long)(mib / step_mib);

	if (strcmp(shape, "staircase") == 0)
		return step * longer(step_mib / rate_mib_s, 2 * step_mib / JUMP_MIB_S) +
		       (mib - step * step_mib) / JUMP_MIB_S;
	return (strcmp(shape, "burst") == 0 ? IDLE_S : 0) + mib / rate_mib_s;
}

static void touch(long chunk)
{
	volatile char *bytes = memory + chunk * CHUNK_BYTES;
	double start = now_s();

	if (populate && madvise((void *)bytes, CHUNK_BYTES, MADV_POPULATE_WRITE))
		exit(1);
	for (long at = 0; !populate && at < CHUNK_BYTES; at += page_bytes)
		bytes[at] = 1;
	took_s[chunk] = now_s() - start;
}

/* Every THREADS-th chunk, so that the pace does not depend on how many share it. */
static void *grow(void *first)
{
	double late_s = 0;

	for (long chunk = base_chunks + (long)first; chunk < all_chunks; chunk += threads) {
		double due = begun_s + late_s + due_s((double)(chunk - base_chunks) / CHUNKS_PER_MIB);

		sleep_until(due);
		if (now_s() - due > STALL_S)
			late_s += now_s() - due;
		touch(chunk);
	}
	return NULL;
}

static int compare(const void *a, const void *b)
{
	return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static void hold_base(void)
{
	static double sorted_s[MAX_CHUNKS];

	memset(took_s, 0xff, sizeof took_s); /* no fault of its own later */
	for (long chunk = 0; chunk < base_chunks; chunk++)
		touch(chunk);
	memcpy(sorted_s, took_s, base_chunks * sizeof *took_s);
	qsort(sorted_s, base_chunks, sizeof *sorted_s, compare);
	typical_s = sorted_s[base_chunks / 2];
}

static void write_report(FILE *report, double seconds)
{
	const char *comma = "";

	fprintf(report, "{\"seconds\": %.4f, \"stalls_ms\": [", seconds);
	for (long chunk = base_chunks; chunk < all_chunks; chunk++)
		if (took_s[chunk] - typical_s > STALL_S) {
			fprintf(report, "%s%.3f", comma, (took_s[chunk] - typical_s) * 1000);
			comma = ", ";
		}
	fprintf(report, "]}\n");
	if (fclose(report))
		exit(1);
}

int main(int argc, char **argv)
{
	pthread_t thread[64];
	sigset_t go;
	FILE *report;
	int signal;

	sigemptyset(&go);
	sigaddset(&go, SIGUSR1);
	sigprocmask(SIG_BLOCK, &go, NULL);
	if (argc != 8)
		return 2;
	populate = strcmp(argv[1], "populate") == 0;
	shape = argv[2];
	rate_mib_s = atof(argv[3]);
	base_chunks = atol(argv[4]) * CHUNKS_PER_MIB;
	amount_mib = atof(argv[5]);
	all_chunks = base_chunks + atol(argv[5]) * CHUNKS_PER_MIB;
	threads = atol(argv[6]);
	page_bytes = sysconf(_SC_PAGESIZE);
	if (base_chunks < 1 || all_chunks > MAX_CHUNKS || threads < 1 || threads > 64)
		return 2;
	memory = mmap(NULL, all_chunks * CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 1;

	hold_base();
	report = fopen(argv[7], "w");
	if (!report || sigwait(&go, &signal))
		return 1;
	begun_s = now_s();
	for (long n = 0; n < threads; n++)
		if (pthread_create(&thread[n], NULL, grow, (void *)n))
			return 1;
	for (long n = 0; n < threads; n++)
		pthread_join(thread[n], NULL);
	double seconds = now_s() - begun_s;

	/* At a limit even a write may fail: no longer at it. */
	munmap((void *)memory, all_chunks * CHUNK_BYTES);
	write_report(report, seconds);
	return 0;
}
