// One matrix instruction of one warp, between memory images.
// memory [bytes] goes to shared memory and back; rows [32] are byte offsets; registers [32][4] in and out, d [32][4].
// One CTA of 32 threads.
// Nothing bounds it.
// Held by tests/golden/isa.rs.
#include "isa/isa.cuh"

namespace isa_golden {
struct Args {
    unsigned char* memory;
    const int* rows;
    uint32_t* a;
    uint32_t* b;
    float* d;
    long long bytes;
    long long instruction;
};
struct Smem {
    isa::Shared<uint32_t> words[1024];
};
}  // namespace isa_golden

KERNEL(isa_golden, isa_golden::Args, 32, 1) {
    auto& smem = isa::smem<isa_golden::Smem>();
    auto words = reinterpret_cast<uint32_t*>(args.memory);
    int lane = threadIdx.x;
    for (int i = lane; i < args.bytes / 4; i += 32) smem.words[i] = words[i];
    isa::sync_cta();
    auto row = reinterpret_cast<isa::Shared<bf16>*>(reinterpret_cast<unsigned char*>(smem.words) + args.rows[lane]);
    isa::Frag<4> four;
    isa::Frag<2> two;
    isa::Frag<1> one;
    isa::Acc acc;
    for (int i = 0; i < 4; i++) {
        four[i] = args.a[lane * 4 + i];
        acc[i] = args.d[lane * 4 + i];
    }
    for (int i = 0; i < 2; i++) two[i] = args.b[lane * 4 + i];
    one[0] = four[0];
    bool stores = args.instruction >= 20;
    switch (int(args.instruction)) {
        case 1: isa::ldmatrix(one, row); break;
        case 2: isa::ldmatrix(two, row); break;
        case 4: isa::ldmatrix(four, row); break;
        case 11: isa::ldmatrix_trans(one, row); break;
        case 12: isa::ldmatrix_trans(two, row); break;
        case 14: isa::ldmatrix_trans(four, row); break;
        case 21: isa::stmatrix(row, one); break;
        case 22: isa::stmatrix(row, two); break;
        case 24: isa::stmatrix(row, four); break;
        case 31: isa::stmatrix_trans(row, one); break;
        case 32: isa::stmatrix_trans(row, two); break;
        case 34: isa::stmatrix_trans(row, four); break;
        default: isa::mma(acc, four, two); break;
    }
    isa::sync_cta();
    if (stores) {
        for (int i = lane; i < args.bytes / 4; i += 32) words[i] = smem.words[i];
    }
    int registers = int(args.instruction) % 10;
    for (int i = 0; i < 4; i++) {
        args.a[lane * 4 + i] = registers == 1 ? one[0] : registers == 2 ? two[i % 2] : four[i];
        args.d[lane * 4 + i] = acc[i];
    }
}
