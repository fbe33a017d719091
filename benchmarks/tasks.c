/* Tasks for many cgroups, from one cheap program.

   Each line of stdin is "PAUSE_US WORK_US FILE...": a task enters the cgroups of those cgroup.procs files, and
   from then on sleeps for PAUSE_US and works for WORK_US in turns.  All of them end with stdin. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static void work(long us)
{
	struct timespec start, now;
	clock_gettime(CLOCK_MONOTONIC, &start);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - start.tv_sec) * 1000000L + (now.tv_nsec - start.tv_nsec) / 1000 < us);
}

static void enter(const char *file)
{
	int fd = open(file, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1) {
		perror(file);
		_exit(1);
	}
	close(fd);
}

static void task(unsigned number, long pause_us, long work_us, char *files)
{
	struct timespec pause = {pause_us / 1000000, pause_us % 1000000 * 1000};
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (char *file = strtok(files, " \n"); file; file = strtok(NULL, " \n"))
		enter(file);
	srand(number);
	usleep(rand() % pause_us); /* not all at once */
	for (;;) {
		work(work_us);
		nanosleep(&pause, NULL);
	}
}

int main(void)
{
	static char line[4096];
	for (unsigned number = 1; fgets(line, sizeof line, stdin); number++) {
		int read;
		long pause_us, work_us;
		if (sscanf(line, "%ld %ld %n", &pause_us, &work_us, &read) < 2)
			return 2;
		if (fork() == 0)
			task(number, pause_us, work_us, line + read);
	}
	return 0;
}
