/* A libnvidia-ml.so.1 without a card behind it. The environment says what it tells:
 * STUB_NVML_CARDS (1), STUB_NVML_INIT (0: the code that the start returns), STUB_NVML_HANG (the start never returns),
 * STUB_NVML_MEMORY and STUB_NVML_RATES (0: the code that each card returns for them), STUB_NVML_LOST (a card that fell off its bus).
 * Compiled with -DOLD it lacks what old libraries lack. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void *card;
typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned int gpu, memory; } rates;
typedef struct { char old_bus_id[16]; unsigned int domain, bus, device, pci_device, pci_subsystem; char bus_id[32]; } pci;

static const unsigned long long GIB = 1ull << 30;

static int said(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value ? atoi(value) : otherwise;
}

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    if (getenv("STUB_NVML_HANG")) for (;;) pause();
    return said("STUB_NVML_INIT", 0);
}
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { (void)code; return "as the stub was told"; }
int nvmlSystemGetDriverVersion(char *text, unsigned int length) { snprintf(text, length, "999.1"); return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = (unsigned int)said("STUB_NVML_CARDS", 1); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, card *found) {
    if ((int)index == said("STUB_NVML_LOST", -1)) return 15;
    *found = (card)(size_t)(index + 1);
    return 0;
}
int nvmlDeviceGetName(card which, char *text, unsigned int length) {
    (void)which;
    snprintf(text, length, "NVIDIA Stub 4090");
    return 0;
}
int nvmlDeviceGetUUID(card which, char *text, unsigned int length) {
    snprintf(text, length, "GPU-%08zx-0000-0000-0000-000000000000", (size_t)which);
    return 0;
}
int nvmlDeviceGetMemoryInfo(card which, memory_v1 *told) {
    (void)which;
    int code = said("STUB_NVML_MEMORY", 0);
    told->total = 24 * GIB; told->used = 4 * GIB; told->free = 20 * GIB;
    return code;
}
#ifndef OLD
int nvmlDeviceGetMemoryInfo_v2(card which, memory_v2 *told) {
    (void)which;
    int code = said("STUB_NVML_MEMORY", 0);
    told->total = 24 * GIB; told->reserved = GIB / 2; told->used = 3 * GIB; told->free = 20 * GIB + GIB / 2;
    return code;
}
int nvmlDeviceGetPciInfo_v3(card which, pci *told) {
    memset(told, 0, sizeof *told);
    snprintf(told->bus_id, sizeof told->bus_id, "00000000:C%zu:00.0", (size_t)which);
    return 0;
}
int nvmlDeviceGetUtilizationRates(card which, rates *told) {
    (void)which;
    int code = said("STUB_NVML_RATES", 0);
    told->gpu = 37; told->memory = 5;
    return code;
}
#endif
