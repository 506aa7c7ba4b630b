// C interface of the emulator: checks a launch as the CUDA driver would, and runs it.
#include "emu/api.h"

#include <algorithm>
#include <new>

#include "emu/fiber.h"

namespace emu {

namespace {

// Maximum number of CTAs of a streaming multiprocessor, and bytes of shared memory that the system reserves for each of
// them (CUDA programming guide, technical specifications).
constexpr uint64_t kSmCtas = 32, kCtaReserved = 1024;

uint64_t ctas_per_sm(const EmuOptions& sm, const EmuLaunch& launch) {
    uint64_t warps = (launch.block + kLanes - 1) / kLanes;
    uint64_t n = std::min(kSmCtas, sm.sm_warps / warps);
    n = std::min(n, sm.sm_shared / (launch.smem + kCtaReserved));
    if (launch.registers != 0) {
        // Registers of a warp are allocated in units of 256.
        uint64_t warp_registers = (launch.registers * 32ull + 255) / 256 * 256;
        n = std::min(n, sm.sm_registers / (warps * warp_registers));
    }
    return n;
}

}  // namespace

std::string refusal(const EmuOptions& sm, const EmuEntry& entry, const EmuLaunch& launch, size_t args_size) {
    std::string name = std::string("kernel ") + entry.name + ": ";
    if (args_size != entry.args_size) {
        return name + "arguments of " + std::to_string(args_size) + " bytes, declared with " +
               std::to_string(entry.args_size);
    }
    if (launch.block == 0 || launch.block > kMaxThreads) {
        return name + std::to_string(launch.block) + " threads a CTA: 1 to 1024";
    }
    if (launch.block > entry.threads) {
        return name + std::to_string(launch.block) + " threads a CTA, its launch bound is " +
               std::to_string(entry.threads);
    }
    if (launch.block % kLanes != 0) {
        return name + std::to_string(launch.block) + " threads a CTA: a multiple of 32";
    }
    if (launch.grid[0] == 0 || launch.grid[1] == 0 || launch.grid[2] == 0 || launch.grid[0] > 0x7fffffffu ||
        launch.grid[1] > 65535 || launch.grid[2] > 65535) {
        return name + "grid " + std::to_string(launch.grid[0]) + " x " + std::to_string(launch.grid[1]) + " x " +
               std::to_string(launch.grid[2]) + ": 1 to 2147483647 x 65535 x 65535";
    }
    if (launch.smem + kCtaReserved > sm.sm_shared) {
        return name + std::to_string(launch.smem) + " bytes of dynamic shared memory: at most " +
               std::to_string(sm.sm_shared - kCtaReserved);
    }
    if (launch.cluster == 0 || launch.cluster > 8 || launch.grid[0] % launch.cluster != 0) {
        return name + "clusters of " + std::to_string(launch.cluster) + " CTAs do not divide a grid of " +
               std::to_string(launch.grid[0]);
    }
    if (launch.registers > 255 || ctas_per_sm(sm, launch) == 0) {
        return name + std::to_string(launch.registers) + " registers a thread x " + std::to_string(launch.block) +
               " threads: an SM has " + std::to_string(sm.sm_registers);
    }
    return "";
}

}  // namespace emu

using emu::Instance;

struct EmuInstance : Instance {};

uint32_t omr_emu_version(void) { return OMR_EMU_VERSION; }

EmuInstance* omr_emu_create(const EmuOptions* options) {
    auto* emu = new (std::nothrow) EmuInstance();
    if (emu != nullptr) emu->options = *options;
    return emu;
}

void omr_emu_destroy(EmuInstance* emu) { delete emu; }

void omr_emu_set_options(EmuInstance* emu, const EmuOptions* options) { emu->options = *options; }

int omr_emu_launch(EmuInstance* emu, const EmuEntry* entry, const EmuLaunch* launch, const void* args,
                   size_t args_size) {
    emu->failed = false;
    emu->error = emu::refusal(emu->options, *entry, *launch, args_size);
    if (!emu->error.empty()) return 1;
    // Places are relative to the kernel's entry, so cached sites of another kernel are invalid.
    if (emu->entry != entry) {
        for (auto& cached : emu->site_cache) cached = {};
    }
    emu->entry = entry;
    emu->args = args;
    emu->launch = *launch;
    emu->grid_dim = {launch->grid[0], launch->grid[1], launch->grid[2]};
    emu->block_dim = {launch->block, 1, 1};
    emu->cta_total = uint64_t(launch->grid[0]) * launch->grid[1] * launch->grid[2];
    emu->cta_started = 0;
    emu->resident_limit = emu::ctas_per_sm(emu->options, *launch) * std::max(1u, emu->options.sms);
    if (emu->resident_limit < launch->cluster) {
        emu->error = std::string("kernel ") + entry->name + ": a cluster of " + std::to_string(launch->cluster) +
                     " CTAs, " + std::to_string(emu->resident_limit) + " fit";
        return 1;
    }
    emu->launches++;
    emu->global.begin();
    emu->order.clear();
    if (emu->options.corners != 0 && emu->cta_total > 2 * launch->cluster) {
        emu->order = {0, uint32_t(emu->cta_total / launch->cluster - 1)};
        emu->cta_total = 2 * launch->cluster;
    } else if (emu->options.seed != 0) {
        // The number of the launch is included, so that two launches of one kernel differ.
        emu->random_state = (emu->options.seed + emu->launches) * 0x9e3779b97f4a7c15ull | 1;
        for (uint64_t i = 0; i < emu->cta_total / launch->cluster; i++) {
            emu->order.push_back(uint32_t(i));
            std::swap(emu->order.back(), emu->order[emu->below(uint32_t(i + 1))]);
        }
    }
    emu::guard_enter(*emu);
    int status = emu::run_launch(*emu);
    emu::guard_leave();
    return status;
}

const char* omr_emu_error(const EmuInstance* emu) { return emu->error.c_str(); }

void omr_emu_skip(EmuInstance* emu, const char* file, uint32_t line) {
    emu->skip_file = file == nullptr ? "" : file;
    emu->skip_line = file == nullptr ? 0 : line;
    for (auto& [key, site] : emu->sites) site.skipped = site.line == emu->skip_line && site.file == emu->skip_file;
}

size_t omr_emu_sites(EmuInstance* emu, EmuSite* out, size_t capacity) {
    std::vector<const emu::Site*> sites;
    for (const auto& [key, site] : emu->sites) sites.push_back(&site);
    std::sort(sites.begin(), sites.end(), [](const emu::Site* a, const emu::Site* b) {
        return a->file != b->file ? a->file < b->file : a->line < b->line;
    });
    for (size_t i = 0; i < sites.size() && i < capacity; i++) {
        out[i] = {sites[i]->file.c_str(), sites[i]->wrapper.c_str(), sites[i]->line};
    }
    return sites.size();
}

uint64_t omr_emu_bank_conflicts(const EmuInstance* emu) { return emu->bank_conflicts; }
