/* The registry of an engine with two CUDA cards, of which a real one is not to be had everywhere: libggml, libggml-base and libllama in one. */
#include <stddef.h>
#include <string.h>

struct properties {
    const char *name, *description;
    size_t memory_free, memory_total;
    int kind;
    const char *device_id;
    _Bool caps[8];
};

static const struct properties DEVICES[] = {
    {"CUDA0", "NVIDIA Stub 4090", 20ull << 30, 24ull << 30, 1, "0000:c1:00.0", {0}},
    {"CUDA1", "NVIDIA Stub 4090", 0, 0, 1, "0000:c2:00.0", {0}},
    {"CPU", "A processor", 1ull << 30, 2ull << 30, 0, NULL, {0}},
};

void ggml_backend_load_all_from_path(const char *folder) { (void)folder; }
size_t ggml_backend_reg_count(void) { return 2; }
void *ggml_backend_reg_get(size_t place) { return (void *)(place + 1); }
const char *ggml_backend_reg_name(void *backend) { return backend == (void *)1 ? "CUDA" : "CPU"; }
size_t ggml_backend_dev_count(void) { return 3; }
void *ggml_backend_dev_get(size_t place) { return (void *)(place + 1); }
void *ggml_backend_dev_backend_reg(void *device) { return device == (void *)3 ? (void *)2 : (void *)1; }
void ggml_backend_dev_get_props(void *device, struct properties *told) { memcpy(told, &DEVICES[(size_t)device - 1], sizeof *told); }
const char *llama_print_system_info(void) { return "CUDA : ARCHS = 890 | CPU : AVX2 = 1 | AVX512 = 0 | "; }
