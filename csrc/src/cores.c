#if defined(__linux__)
#  define _GNU_SOURCE  // sched_getaffinity
#endif
#include "cores.h"

#if defined(_WIN32)
#  define WIN32_LEAN_AND_MEAN
#  include <windows.h>
#else
#  include <unistd.h>
#endif

#if defined(__linux__)
#  include <sched.h>
#  include <stdio.h>
#  include <stdlib.h>
#  include <string.h>

enum { PATH_BYTES = 1024 };

// Reads a small file as text; "" if there is none.
static void read_text(const char *path, char *text, size_t bytes) {
  text[0] = 0;
  FILE *file = fopen(path, "re");
  if (!file) return;
  const size_t length = fread(text, 1, bytes - 1, file);
  text[length] = 0;
  fclose(file);
}

static int32_t whole_cores(long long quota, long long period, int32_t most) {
  if (quota <= 0 || period <= 0) return most;
  const long long cores = quota / period;  // rounded down: a throttled thread stalls all others
  return cores < 1 ? 1 : cores < most ? (int32_t)cores : most;
}

static int32_t folder_quota(const char *folder, int32_t most) {
  char path[PATH_BYTES + 32];
  char text[64];
  snprintf(path, sizeof path, "%s/cpu.max", folder);  // v2: "QUOTA PERIOD" or "max PERIOD"
  read_text(path, text, sizeof text);
  long long quota = 0;
  long long period = 0;
  if (sscanf(text, "%lld %lld", &quota, &period) == 2) return whole_cores(quota, period, most);
  snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
  read_text(path, text, sizeof text);
  quota = strtoll(text, NULL, 10);
  snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
  read_text(path, text, sizeof text);
  return whole_cores(quota, strtoll(text, NULL, 10), most);
}

// A quota may sit on the process's own group or on any group above it.
static int32_t tree_quota(const char *mount, const char *group, int32_t most) {
  char folder[PATH_BYTES];
  if (snprintf(folder, sizeof folder, "%s%s", mount, group) >= (int)sizeof folder) return most;
  for (;;) {
    most = folder_quota(folder, most);
    char *slash = strrchr(folder, '/');
    if (!slash || (size_t)(slash - folder) < strlen(mount)) return most;
    *slash = 0;
  }
}

// Lines of /proc/self/cgroup: "0::GROUP" is v2, "N:LIST:GROUP" with cpu in LIST is v1.
static int32_t cgroup_quota(int32_t most) {
  char text[4 * PATH_BYTES];
  read_text("/proc/self/cgroup", text, sizeof text);
  char *rest = NULL;
  for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
    char *list = strchr(line, ':');
    char *group = list ? strchr(list + 1, ':') : NULL;
    if (!group) continue;
    *group++ = 0;
    list++;
    if (*list == 0) most = tree_quota("/sys/fs/cgroup", group, most);
    char *names = NULL;
    for (char *name = strtok_r(list, ",", &names); name; name = strtok_r(NULL, ",", &names)) {
      if (strcmp(name, "cpu") == 0) most = tree_quota("/sys/fs/cgroup/cpu", group, most);
    }
  }
  return most;
}

static int32_t affinity_cores(void) {
  // Machines with more cores than cpu_set_t holds need a larger mask.
  for (int32_t cores = 1024; cores <= 1 << 18; cores *= 4) {
    cpu_set_t *set = CPU_ALLOC((size_t)cores);
    if (!set) break;
    const size_t bytes = CPU_ALLOC_SIZE((size_t)cores);
    const int32_t count = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (count > 0) return count;
  }
  return 0;
}
#endif

int32_t ckv_usable_cores(void) {
  int32_t cores = 0;
#if defined(_WIN32)
  DWORD_PTR process = 0;
  DWORD_PTR machine = 0;
  if (GetProcessAffinityMask(GetCurrentProcess(), &process, &machine)) {
    for (; process; process &= process - 1) cores++;
  }
#else
#  if defined(__linux__)
  cores = affinity_cores();
#  endif
  if (cores < 1) {
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    cores = online > 0 && online < INT32_MAX ? (int32_t)online : 1;
  }
#endif
  if (cores < 1) cores = 1;
#if defined(__linux__)
  cores = cgroup_quota(cores);
#endif
  return cores;
}
