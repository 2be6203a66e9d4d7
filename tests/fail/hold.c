// hold.c: holds a process for some seconds, as a debugger does that has come to a breakpoint: hold PID SECONDS. Exit
// code 2: not allowed here.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static int held[1024], n;

static int hold(int thread) {
    if (thread <= 0 || n == 1024) return 0;
    if (ptrace(PTRACE_ATTACH, thread, NULL, NULL)) return -1;
    waitpid(thread, NULL, __WALL);
    held[n++] = thread;
    return 0;
}

int main(int argc, char **argv) {
    char path[64];
    if (argc != 3) return 1;
    snprintf(path, sizeof path, "/proc/%s/task", argv[1]);
    DIR *d = opendir(path);
    if (!d) return 1;
    for (struct dirent *e; (e = readdir(d));)
        if (hold(atoi(e->d_name))) return 2;
    sleep((unsigned)atoi(argv[2]));
    for (int i = 0; i < n; i++) ptrace(PTRACE_DETACH, held[i], NULL, NULL);
    return n == 0;
}
