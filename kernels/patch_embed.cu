// Computes normalised patch rows of one image or video from its bytes, in merge order, as input of the projection's
// GEMM.
// Shapes: pixels u8 [frames][grid_h * size][grid_w * size][3]; patches [count, 3 * depth * size * size], elements
// ordered (channel, frame, y, x).
// Grid: a CTA of 256 threads makes a table of 3 x 256 normalised values. Then each thread computes PASSES x 8
// consecutive elements.
// Bound: memory. About 2 bytes written and at most 1 read per element; the GEMM then reads the patches again (from L2).
// Reference: src/runtime/ops/patch_embed.rs; tests/runtime/kernels/patch_embed.rs.
// Benchmark: `omr bench ops`.
#include "isa/isa.cuh"

namespace patch_embed {

constexpr int THREADS = 256;
// Consecutive elements per thread: one 16-byte store.
constexpr int RUN = 8;
// Passes per CTA: enough to make the table a small part of its work.
constexpr int PASSES = 8;

struct Args {
    const uint8_t* pixels;  // first byte of the image
    bf16* patches;
    double rescale;
    float mean[3], std[3];
    // Patches `first` .. `first + count` of the image. still: 1 if one frame stands for all `depth` frames of a patch.
    int first, count, grid_h, grid_w, size, merge, depth, still;
};

struct Smem {
    isa::Shared<bf16> table[3][256];
};

// Iterates over the elements of patch rows in order.
struct Cursor {
    int patch, channel, frame, y, x;
    const uint8_t* line;  // address of pixel x = 0 of the line

    __device__ __forceinline__ Cursor(const Args& args, int element) {
        int area = args.size * args.size, row = 3 * args.depth * area;
        patch = element / row;
        channel = element % row / (args.depth * area);
        frame = element % (args.depth * area) / area;
        y = element % area / args.size;
        x = element % args.size;
        find(args);
    }

    __device__ __forceinline__ void find(const Args& args) {
        int at = args.first + patch, per_frame = args.grid_h * args.grid_w;
        int in_frame = at % per_frame, block = in_frame / (args.merge * args.merge);
        int inner = in_frame % (args.merge * args.merge), blocks_w = args.grid_w / args.merge;
        int top = (block / blocks_w * args.merge + inner / args.merge) * args.size;
        int left = (block % blocks_w * args.merge + inner % args.merge) * args.size;
        int t = args.still ? at / per_frame : at / per_frame * args.depth + frame;
        int64_t stored = ((int64_t)t * args.grid_h * args.size + top + y) * args.grid_w * args.size + left;
        line = args.pixels + stored * 3 + channel;
    }

    // Returns the current pixel and advances.
    __device__ __forceinline__ bf16 next(const Args& args, const Smem& smem) {
        bf16 value = smem.table[channel][line[x * 3]];
        if (++x == args.size) {
            x = 0;
            if (++y == args.size) {
                y = 0;
                if (++frame == args.depth) {
                    frame = 0;
                    if (++channel == 3) {
                        channel = 0;
                        patch++;
                    }
                }
            }
            find(args);
        }
        return value;
    }
};

}  // namespace patch_embed

// registers patch_rows <= 48
KERNEL(patch_rows, patch_embed::Args, patch_embed::THREADS, 4) {
    using namespace patch_embed;
    auto& smem = isa::smem<Smem>();
    // As on the CPU: rescales in f64, then continues in f32.
    for (int i = threadIdx.x; i < 3 * 256; i += THREADS) {
        int channel = i / 256;
        float mean = channel == 0 ? args.mean[0] : channel == 1 ? args.mean[1] : args.mean[2];
        float std = channel == 0 ? args.std[0] : channel == 1 ? args.std[1] : args.std[2];
        float value = (float)((double)(i % 256) * args.rescale);
        smem.table[channel][i % 256] = to_bf16((value - mean) / std);
    }
    isa::sync_cta();
    int row = 3 * args.depth * args.size * args.size;
    int total = args.count * row;
    for (int pass = 0; pass < PASSES; pass++) {
        int element = ((blockIdx.x * PASSES + pass) * THREADS + threadIdx.x) * RUN;
        if (element >= total) {
            break;
        }
        Cursor cursor(args, element);
        if (row % RUN == 0) {
            uint32_t pairs[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint32_t low = cursor.next(args, smem).bits;
                pairs[i] = low | (uint32_t)cursor.next(args, smem).bits << 16;
            }
            isa::store(args.patches + element, make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]));
        } else {
            int end = min(element + RUN, total);
            for (int i = element; i < end; i++) {
                args.patches[i] = cursor.next(args, smem);
            }
        }
    }
}
