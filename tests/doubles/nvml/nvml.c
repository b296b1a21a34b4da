/* A double of libnvidia-ml.so.1 that plays a recorded host.
 *
 * It reads the file that NVML_DOUBLE names at nvmlInit: lines of words with tabs
 * between them, as tests/doubles/nvml/__init__.py writes them. A line "error FUNCTION
 * CODE" makes that function fail with that code. Signatures follow nvml.h, as far as
 * pynvml calls them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 16
#define LANES 36
#define CPU_WORDS 64
#define NOT_SUPPORTED 3
#define INVALID_ARGUMENT 2
#define NOT_FOUND 6
#define UNINITIALIZED 1

typedef struct device {
  char uuid[96], name[96], pci[32];
  unsigned long long memory, cpus[CPU_WORDS];
  int index, major, minor, version, mig, slices, lanes;
  int lane_kind[LANES];
  char lane_end[LANES][32];
  struct device *slice[MOST];
} device;

typedef struct {
  char bus_id_legacy[16];
  unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
} pci_info;

typedef struct {
  unsigned long long total, free, used;
} memory_info;

static device gpus[MOST];
static int count, ready;
static int level[MOST][MOST], p2p[MOST][MOST][6];
static char driver[80];
static int cuda, errors;
static struct {
  char function[64];
  int code;
} error[MOST];

#define COPY(to, from) snprintf((to), sizeof(to), "%s", (from))

static int failing(const char *function) {
  for (int i = 0; i < errors; i++)
    if (!strcmp(error[i].function, function)) return error[i].code;
  return 0;
}

#define BEGIN(function)                        \
  do {                                         \
    int code = failing(function);              \
    if (code) return code;                     \
    if (!ready) return UNINITIALIZED;          \
  } while (0)

static void take(char *line) {
  char *word[12] = {0};
  int n = 0;
  line[strcspn(line, "\n")] = 0;
  for (char *next = strtok(line, "\t"); next && n < 12; next = strtok(NULL, "\t"))
    word[n++] = next;
  if (!n) return;
  if (!strcmp(word[0], "driver")) COPY(driver, word[1]);
  if (!strcmp(word[0], "cuda")) cuda = atoi(word[1]);
  if (!strcmp(word[0], "error")) {
    COPY(error[errors].function, word[1]);
    error[errors++].code = atoi(word[2]);
  }
  if (!strcmp(word[0], "gpu")) {
    device *made = &gpus[count];
    made->index = count++;
    COPY(made->uuid, word[1]);
    COPY(made->name, word[2]);
    COPY(made->pci, word[3]);
    made->memory = strtoull(word[4], NULL, 10);
    made->major = atoi(word[5]);
    made->minor = atoi(word[6]);
    made->version = atoi(word[7]);
    made->mig = atoi(word[8]);
  }
  if (!strcmp(word[0], "cpus"))
    for (char *cpu = strtok(word[2], ","); cpu; cpu = strtok(NULL, ","))
      gpus[atoi(word[1])].cpus[atoi(cpu) / 64] |= 1ULL << (atoi(cpu) % 64);
  if (!strcmp(word[0], "lane")) {
    device *gpu = &gpus[atoi(word[1])];
    gpu->lane_kind[gpu->lanes] = atoi(word[2]);
    COPY(gpu->lane_end[gpu->lanes++], word[3]);
  }
  if (!strcmp(word[0], "mig")) {
    device *gpu = &gpus[atoi(word[1])];
    device *slice = calloc(1, sizeof *slice);
    COPY(slice->uuid, word[2]);
    slice->memory = strtoull(word[3], NULL, 10);
    gpu->slice[gpu->slices++] = slice;
  }
  if (!strcmp(word[0], "pair")) {
    int a = atoi(word[1]), b = atoi(word[2]);
    level[a][b] = level[b][a] = atoi(word[3]);
    p2p[a][b][0] = p2p[b][a][0] = atoi(word[4]);
    p2p[a][b][2] = p2p[b][a][2] = atoi(word[5]);
  }
}

int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  if (!ready) {
    char line[4096], *path = getenv("NVML_DOUBLE");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return 9; /* the driver is not loaded */
    while (fgets(line, sizeof line, file)) take(line);
    fclose(file);
  }
  int code = failing("nvmlInit");
  if (!code) ready = 1;
  return code;
}

int nvmlShutdown(void) {
  ready = 0;
  count = errors = 0;
  memset(gpus, 0, sizeof gpus);
  return 0;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
  BEGIN("nvmlSystemGetDriverVersion");
  snprintf(version, length, "%s", driver);
  return 0;
}

int nvmlSystemGetCudaDriverVersion(int *version) {
  BEGIN("nvmlSystemGetCudaDriverVersion");
  *version = cuda;
  return 0;
}

int nvmlDeviceGetCount_v2(unsigned *found) {
  BEGIN("nvmlDeviceGetCount");
  *found = (unsigned)count;
  return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **handle) {
  BEGIN("nvmlDeviceGetHandleByIndex");
  if ((int)index >= count) return INVALID_ARGUMENT;
  *handle = &gpus[index];
  return 0;
}

int nvmlDeviceGetUUID(device *gpu, char *uuid, unsigned length) {
  BEGIN("nvmlDeviceGetUUID");
  snprintf(uuid, length, "%s", gpu->uuid);
  return 0;
}

int nvmlDeviceGetName(device *gpu, char *name, unsigned length) {
  BEGIN("nvmlDeviceGetName");
  snprintf(name, length, "%s", gpu->name);
  return 0;
}

static void fill(pci_info *info, const char *pci) {
  memset(info, 0, sizeof *info);
  COPY(info->bus_id, pci);
  COPY(info->bus_id_legacy, pci + 4);
}

int nvmlDeviceGetPciInfo_v3(device *gpu, pci_info *info) {
  BEGIN("nvmlDeviceGetPciInfo");
  fill(info, gpu->pci);
  return 0;
}

int nvmlDeviceGetMemoryInfo(device *gpu, memory_info *info) {
  BEGIN("nvmlDeviceGetMemoryInfo");
  info->total = info->free = gpu->memory;
  info->used = 0;
  return 0;
}

int nvmlDeviceGetCudaComputeCapability(device *gpu, int *major, int *minor) {
  BEGIN("nvmlDeviceGetCudaComputeCapability");
  *major = gpu->major;
  *minor = gpu->minor;
  return 0;
}

int nvmlDeviceGetCpuAffinity(device *gpu, unsigned words, unsigned long *set) {
  BEGIN("nvmlDeviceGetCpuAffinity");
  for (unsigned i = 0; i < words; i++) set[i] = i < CPU_WORDS ? gpu->cpus[i] : 0;
  return 0;
}

int nvmlDeviceGetNvLinkState(device *gpu, unsigned lane, unsigned *active) {
  BEGIN("nvmlDeviceGetNvLinkState");
  if (!gpu->lanes) return NOT_SUPPORTED;
  if ((int)lane >= gpu->lanes) return INVALID_ARGUMENT;
  *active = 1;
  return 0;
}

int nvmlDeviceGetNvLinkVersion(device *gpu, unsigned lane, unsigned *version) {
  BEGIN("nvmlDeviceGetNvLinkVersion");
  if ((int)lane >= gpu->lanes) return NOT_SUPPORTED;
  *version = (unsigned)gpu->version;
  return 0;
}

int nvmlDeviceGetNvLinkRemoteDeviceType(device *gpu, unsigned lane, unsigned *kind) {
  BEGIN("nvmlDeviceGetNvLinkRemoteDeviceType");
  if ((int)lane >= gpu->lanes) return NOT_SUPPORTED;
  *kind = (unsigned)gpu->lane_kind[lane];
  return 0;
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(device *gpu, unsigned lane, pci_info *info) {
  BEGIN("nvmlDeviceGetNvLinkRemotePciInfo");
  if ((int)lane >= gpu->lanes) return NOT_SUPPORTED;
  fill(info, gpu->lane_end[lane]);
  return 0;
}

int nvmlDeviceGetTopologyCommonAncestor(device *a, device *b, unsigned *found) {
  BEGIN("nvmlDeviceGetTopologyCommonAncestor");
  *found = (unsigned)level[a->index][b->index];
  return 0;
}

int nvmlDeviceGetP2PStatus(device *a, device *b, unsigned kind, unsigned *status) {
  BEGIN("nvmlDeviceGetP2PStatus");
  if (kind >= 6) return INVALID_ARGUMENT;
  *status = (unsigned)p2p[a->index][b->index][kind];
  return 0;
}

int nvmlDeviceGetMigMode(device *gpu, unsigned *current, unsigned *pending) {
  BEGIN("nvmlDeviceGetMigMode");
  if (gpu->mig < 0) return NOT_SUPPORTED;
  *current = *pending = (unsigned)gpu->mig;
  return 0;
}

int nvmlDeviceGetMaxMigDeviceCount(device *gpu, unsigned *most) {
  BEGIN("nvmlDeviceGetMaxMigDeviceCount");
  *most = gpu->mig > 0 ? 7 : 0;
  return 0;
}

int nvmlDeviceGetMigDeviceHandleByIndex(device *gpu, unsigned index, device **slice) {
  BEGIN("nvmlDeviceGetMigDeviceHandleByIndex");
  if ((int)index >= gpu->slices) return NOT_FOUND;
  *slice = gpu->slice[index];
  return 0;
}
