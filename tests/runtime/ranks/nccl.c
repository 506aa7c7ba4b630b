/* A replacement of NCCL without GPUs, for tests of the calls. Data is transferred through files in the library's own
 * folder, so ranks may be threads or processes. It is stricter than NCCL: it refuses sends and receives outside a group,
 * and calls while a group is in progress. The calls of each rank are written to `log-RANK` in the same folder. Lines of
 * the file `play` in that folder cause failures:
 *   version N             the library has version N
 *   fail FUNCTION RANK N  the function returns N on that rank; for a function without a rank, RANK is 0
 *   async RANK N AFTER    the state of the rank's communicator is N after AFTER groups are complete
 *   stuck RANK AFTER      after AFTER groups, the transfers of the rank hang
 *   abort hangs           ncclCommAbort hangs, as it may if a GPU does not respond */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, IN_PROGRESS = 7 };
enum { STARTING, READY, MOVING, ENDING, ENDED };
#define API __attribute__((visibility("default")))
#define MOST_RANKS 64
#define MOST_MOVES 4096

typedef struct { char internal[128]; } Id;
typedef struct { size_t size; unsigned magic, version; int blocking, cga, least, most; const char *net; int split; } Config;
typedef struct { int sends, peer; char *at; size_t bytes; unsigned number; void *stream; int done; } Move;
typedef struct Comm {
    char id[128];
    struct Comm **made;
    int rank, size, state, num_moves, groups;
    unsigned sent[MOST_RANKS], received[MOST_RANKS];
    Move moves[MOST_MOVES];
} Comm;

static _Thread_local int depth, failed_in_group;
static _Thread_local Comm *grouped;

static char folder[2048];

/* Runs when the library is loaded, before any of its threads. */
__attribute__((constructor)) static void find_folder(void) {
    Dl_info info;
    if (!dladdr((void *)find_folder, &info)) abort();
    snprintf(folder, sizeof folder, "%s", info.dli_fname);
    *strrchr(folder, '/') = 0;
}

static void note(int rank, const char *format, ...) {
    char path[4096];
    snprintf(path, sizeof path, "%s/log-%d", folder, rank);
    FILE *log = fopen(path, "a");
    va_list list;
    va_start(list, format);
    vfprintf(log, format, list);
    fputc('\n', log);
    fclose(log);
    va_end(list);
}

/* Parses the first line of `play` that begins with `start`. Returns 0 if there is none, 2 if it has a number, else 1. */
static int played(const char *start, int *a, int *b) {
    char path[4096], line[256];
    int found = 0;
    snprintf(path, sizeof path, "%s/play", folder);
    FILE *play = fopen(path, "r");
    while (!found && play && fgets(line, sizeof line, play))
        if (strncmp(line, start, strlen(start)) == 0) found = 1 + (sscanf(line + strlen(start), "%d %d", a, b) > 0);
    if (play) fclose(play);
    return found;
}

static int returned(const char *function, int rank) {
    char start[128];
    int code = SUCCESS, none;
    snprintf(start, sizeof start, "fail %s %d ", function, rank);
    played(start, &code, &none);
    return code;
}

/* Checks at the beginning of every call on a communicator. */
#define CALL(comm, name)                                       \
    do {                                                       \
        int code = returned(name, (comm)->rank);               \
        if (code != SUCCESS) return code;                      \
        if ((comm)->state != READY) return INVALID_USAGE;      \
    } while (0)

static void path_of(char *path, size_t size, Comm *comm, int from, int to, unsigned number) {
    snprintf(path, size, "%s/%s/%d-%d-%u", folder, comm->id, from, to, number);
}

static int send_now(Comm *comm, Move *move) {
    char path[4096], parts[4200];
    path_of(path, sizeof path, comm, comm->rank, move->peer, move->number);
    snprintf(parts, sizeof parts, "%s.part", path);
    int file = open(parts, O_CREAT | O_WRONLY, 0600);
    for (size_t at = 0; at < move->bytes;) {
        ssize_t wrote = write(file, move->at + at, move->bytes - at);
        if (wrote <= 0) return SYSTEM_ERROR;
        at += wrote;
    }
    close(file);
    move->done = 1;
    return rename(parts, path) == 0 ? SUCCESS : SYSTEM_ERROR;
}

static int receive_now(Comm *comm, Move *move) {
    char path[4096];
    struct stat is;
    path_of(path, sizeof path, comm, move->peer, comm->rank, move->number);
    int file = open(path, O_RDONLY);
    if (file < 0) return SUCCESS;
    if (fstat(file, &is) != 0 || (size_t)is.st_size != move->bytes) return INVALID_ARGUMENT;
    for (size_t at = 0; at < move->bytes;) {
        ssize_t got = read(file, move->at + at, move->bytes - at);
        if (got <= 0) return SYSTEM_ERROR;
        at += got;
    }
    close(file);
    unlink(path);
    move->done = 1;
    return SUCCESS;
}

/* Makes the progress that is possible now. Returns the communicator's state. */
static int proceed(Comm *comm) {
    int code = SUCCESS, after = 0, left = 0, rank = -1;
    char start[32], path[4096];
    snprintf(start, sizeof start, "async %d ", comm->rank);
    if (played(start, &code, &after) && comm->groups >= after) return code;
    if (played("stuck ", &rank, &after) && rank == comm->rank && comm->groups >= after && comm->state == MOVING) return IN_PROGRESS;
    if (comm->state == STARTING) {
        for (int peer = 0; peer < comm->size; peer++) {
            snprintf(path, sizeof path, "%s/%s/here-%d", folder, comm->id, peer);
            left += access(path, F_OK) != 0;
        }
    }
    for (int i = 0; comm->state == MOVING && i < comm->num_moves; i++) {
        Move *move = &comm->moves[i];
        code = move->done ? SUCCESS : move->sends ? send_now(comm, move) : receive_now(comm, move);
        if (code != SUCCESS) return code;
        left += !move->done;
    }
    if (left) return IN_PROGRESS;
    comm->groups += comm->state == MOVING;
    comm->num_moves = 0;
    /* NCCL's own thread sets this when the start is complete. */
    if (comm->state == STARTING) *comm->made = comm;
    if (comm->state == STARTING || comm->state == MOVING) comm->state = READY;
    if (comm->state == ENDING) comm->state = ENDED;
    return SUCCESS;
}

API int ncclGetVersion(int *version) {
    int none;
    *version = 22803;
    played("version ", version, &none);
    return returned("ncclGetVersion", 0);
}

API const char *ncclGetErrorString(int code) { return code == INVALID_USAGE ? "invalid usage" : "another error"; }
API const char *ncclGetLastError(Comm *comm) { return comm ? "words of NCCL" : ""; }

API int ncclGetUniqueId(Id *id) {
    static int ids;
    char path[4096];
    snprintf(id->internal, sizeof id->internal, "of-%d-%d", getpid(), ids++);
    snprintf(path, sizeof path, "%s/%s", folder, id->internal);
    mkdir(path, 0700);
    return returned("ncclGetUniqueId", 0);
}

API int ncclCommInitRankConfig(Comm **made, int size, Id id, int rank, Config *config) {
    char path[4096];
    int code = returned("ncclCommInitRankConfig", rank);
    if (code != SUCCESS) return code;
    if (config->size != sizeof *config || config->magic != 0xcafebeef || config->blocking != 0) return INVALID_ARGUMENT;
    Comm *comm = calloc(1, sizeof *comm);
    memcpy(comm->id, id.internal, sizeof comm->id);
    comm->rank = rank, comm->size = size, comm->state = STARTING, comm->made = made, *made = comm;
    note(rank, "init %d of %d, layout %u, at most %d CTAs in clusters of %d", rank, size, config->version, config->most, config->cga);
    if (getenv("NCCL_DEBUG")) puts("NCCL INFO of the stand-in"), fflush(stdout);
    snprintf(path, sizeof path, "%s/%s/here-%d", folder, comm->id, rank);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    return IN_PROGRESS;
}

API int ncclCommGetAsyncError(Comm *comm, int *state) {
    int code = returned("ncclCommGetAsyncError", comm->rank);
    usleep(100);
    *state = proceed(comm);
    return code;
}

API int ncclGroupStart(void) {
    int code = returned("ncclGroupStart", 0);
    if (code != SUCCESS) return code;
    depth++, failed_in_group = SUCCESS, grouped = NULL;
    return SUCCESS;
}

static int take(Comm *comm, const char *name, int sends, void *at, size_t bytes, int type, int peer, void *stream) {
    CALL(comm, name);
    if (depth != 1 || (grouped && grouped != comm) || type != 1 || comm->num_moves == MOST_MOVES) return failed_in_group = INVALID_USAGE;
    if (peer < 0 || peer >= comm->size || bytes == 0 || !stream) return failed_in_group = INVALID_ARGUMENT;
    note(comm->rank, "%s %zu %s %d on %p", sends ? "send" : "recv", bytes, sends ? "to" : "from", peer, stream);
    unsigned number = sends ? comm->sent[peer]++ : comm->received[peer]++;
    comm->moves[comm->num_moves++] = (Move){sends, peer, at, bytes, number, stream, 0};
    grouped = comm;
    return SUCCESS;
}

API int ncclSend(void *from, size_t bytes, int type, int peer, Comm *comm, void *stream) {
    return take(comm, "ncclSend", 1, from, bytes, type, peer, stream);
}

API int ncclRecv(void *to, size_t bytes, int type, int peer, Comm *comm, void *stream) {
    return take(comm, "ncclRecv", 0, to, bytes, type, peer, stream);
}

API int ncclGroupEnd(void) {
    if (--depth != 0 || failed_in_group != SUCCESS) return INVALID_USAGE;
    if (!grouped) return SUCCESS;
    /* A GPU's stream runs in order, so its earlier work runs before the group. The emulator does not load libcuda.so. */
    void *cuda = dlopen("libcuda.so", RTLD_LAZY | RTLD_NOLOAD);
    int (*synchronize)(void *) = cuda ? (int (*)(void *))dlsym(cuda, "cuStreamSynchronize") : NULL;
    if (synchronize) synchronize(grouped->moves[0].stream);
    note(grouped->rank, "group of %d", grouped->num_moves);
    int code = returned("ncclGroupEnd", grouped->rank);
    if (code != SUCCESS) return code;
    grouped->state = MOVING;
    return IN_PROGRESS;
}

API int ncclCommFinalize(Comm *comm) {
    CALL(comm, "ncclCommFinalize");
    note(comm->rank, "finalize");
    comm->state = ENDING;
    return IN_PROGRESS;
}

API int ncclCommDestroy(Comm *comm) {
    int code = returned("ncclCommDestroy", comm->rank);
    if (code != SUCCESS) return code;
    note(comm->rank, "destroy");
    if (comm->state != ENDED) return INVALID_USAGE;
    free(comm);
    return SUCCESS;
}

API int ncclCommAbort(Comm *comm) {
    int none;
    note(comm->rank, "abort");
    while (played("abort hangs", &none, &none)) pause();
    free(comm);
    return SUCCESS;
}
