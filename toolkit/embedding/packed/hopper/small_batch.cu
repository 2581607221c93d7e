// A Qwen3 decoder's whole pass over T tokens (16 to 64) as one kernel, for Hopper.
//
// Few tokens make a pass as fast as its weights can be read, if reading never stops. So one kernel does all
// layers: in each CTA a thread asks for weights in the order they are needed, through a ring in shared memory
// and over the borders of products and layers, while the others work out what the sums before it were.
// Clusters of eight CTAs share a product's rows of weights; in a cluster each CTA, its rank, multiplies an
// eighth of the inputs, and their sums meet in shared memory. What a product leaves goes to all clusters
// through the second-level cache, with a counter for each cluster.
//
// Warps of a CTA: 16 consumers, which multiply, add up and attend; one that asks for weights; one that asks
// for rows (what weights are multiplied by: T tokens by some inputs); two that work out roots of mean
// squares.
//
// A norm multiplies by its weights at once, and by 1 / root mean square only after the product, because that
// needs all clusters. Heads are turned before their norm's root is known for the same reason.
//
// The caller's prelude defines, for a shape: TOKENS, HIDDEN, QKV (width of queries, keys and values), GROUP
// (query heads a key head), INTER, EPS, SCALE_LOG2 (log2(e) / sqrt(128)), CLUSTERS, SHARED_BYTES, SUM_NAMES
// and SUM_VALUES. Rows and weights are bfloat16, which has the range that rows need before their norm is
// known; they lie in boxes of 64 inputs = 128 bytes a row, swizzled by 128 bytes.

constexpr int T = TOKENS,
              NT = T / 8;  // tokens, and groups of eight, which is what a product's columns come in
constexpr int RANKS = 8, CONSUMERS = 16, GROUPS = CONSUMERS / RANKS, SQUADS = CONSUMERS / 4;
constexpr int REDUCERS = NT < 8 ? NT : 8;  // warps of a group that add up sums, eight tokens each
constexpr int HEAD = 128, Q_WIDTH = RANKS * GROUP * HEAD, KV_WIDTH = RANKS * HEAD;
// Boxes of a rank's inputs.
constexpr int HIDDEN_BOXES = HIDDEN / RANKS / 64, INTER_BOXES = INTER / RANKS / 64, HEAD_BOXES = GROUP * 2;
// Tiles: 16 rows of a matrix; of qkv 8 and the 8 that turn with them, of gate and up 8 and 8.
constexpr int QKV_TILES = QKV / 16, HIDDEN_TILES = HIDDEN / 16, INTER_TILES = INTER / 8;
constexpr int MOST_TILES = (HIDDEN_TILES + CLUSTERS - 1) / CLUSTERS;  // of the residual stream in a cluster
constexpr int OWN = (MOST_TILES + CONSUMERS - 1) / CONSUMERS;         // and of those with a warp
static_assert(QKV_TILES / 2 / CLUSTERS * 2 >= CONSUMERS, "every warp takes sums of queries, keys and values");

// Shared memory, in bytes.
constexpr int SLOT = 8192;    // 64 rows of weights, 64 inputs
constexpr int BOX = T * 128;  // T rows, 64 inputs
constexpr int PART = T * 64;  // a tile's sums
constexpr int ACTS = HEAD_BOXES > HIDDEN_BOXES ? HEAD_BOXES : HIDDEN_BOXES;
constexpr int SQUARES = MOST_TILES * T * 4, HEAD_ROOTS = (GROUP + 1) * T * 4;  // never needed together
constexpr int SMALL = 1024 + (SQUARES > HEAD_ROOTS ? SQUARES : HEAD_ROOTS);    // and barriers
constexpr int SUMS = GROUPS * RANKS * PART;
static_assert(4 * BOX <= SUMS,
              "keys and values lie where sums are received, which are not needed together either");
constexpr int SLOTS = (SHARED_BYTES - SMALL - SUMS - ACTS * BOX) / SLOT;
// Slots asked for and not there yet, at most: what keeps memory busy, and less while the product before ends,
// when others wait for what clusters leave each other, on the same ways. By measurement.
constexpr int UNDER_WAY = 8, UNDER_WAY_AT_BORDERS = SLOTS / 4 > 4 ? SLOTS / 4 : 4;
static_assert(SLOTS > UNDER_WAY && SLOTS <= 32, "a ring for some steps, and room for its barriers");
constexpr int RING = 0, ACT_AT = SLOTS * SLOT, RECV_AT = ACT_AT + ACTS * BOX, KV_AT = RECV_AT,
              BARRIERS = RECV_AT + SUMS;
// Barriers. A place of a ring is full, then free.
constexpr int W_FULL = BARRIERS, W_FREE = W_FULL + 8 * SLOTS;           // weights
constexpr int A_FULL = W_FREE + 8 * SLOTS, A_FREE = A_FULL + 8 * ACTS;  // rows that come box by box
constexpr int A_ALL = A_FREE + 8 * ACTS, A_DONE = A_ALL + 8;            // rows that come together
constexpr int RECV_FULL = A_DONE + 8,
              CREDIT = RECV_FULL + 8 * GROUPS;  // sums; (rank, group) may send to that rank
constexpr int QKV_READY = CREDIT + 8 * RANKS * GROUPS, KV_FREE = QKV_READY + 8;
constexpr int ROOTS_READY = KV_FREE + 8, SQUARES_READY = ROOTS_READY + 8, SQUARES_FULL = SQUARES_READY + 8;
constexpr int ROOTS_AT = BARRIERS + 1024, SQUARES_AT = ROOTS_AT;
static_assert(SQUARES_FULL + 8 <= ROOTS_AT, "barriers");

// A cluster's part of a matrix's tiles.
struct Share {
  u32 first, count;
};
DEV Share share_of(u32 cluster, u32 total, u32 unit) {
  const u32 first = total / unit * cluster / CLUSTERS * unit,
            next = total / unit * (cluster + 1) / CLUSTERS * unit;
  return {first, next - first};
}

#define TEXT(x) #x
#define NUMBER(x) TEXT(x)
// 64 rows of weights by T tokens, 16 inputs, both described as boxes.
DEV void wgmma(float (&d)[NT][4], u64 weights, u64 rows) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n" NUMBER(TOKENS) "k16.f32.bf16.bf16 " SUM_NAMES
                                                                  ", 1, 1, 1, 0, 0;"
               : SUM_VALUES(d)
               : "l"(weights), "l"(rows));
}

DEV void meet() { asm volatile("bar.sync 1, %0;" ::"n"(32 * CONSUMERS) : "memory"); }

template <int N>
DEV void clear(float (&sums)[N][4]) {
#pragma unroll
  for (int j = 0; j < N; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) sums[j][i] = 0;
}

struct Args {
  const char* maps;  // (layers, 4, 2) tensor maps: qkv, out, gate_up, down, each for four tiles, and for two
                     // of the wide or one of the narrow
  const char* row_maps;  // tensor maps: hidden boxes of scaled, a box of gated, a rank's query boxes and two
                         // boxes of qkv
  const u16* embedding;
  const int* tokens;        // (T,) ids
  const int* position_ids;    // (T,) in their texts
  const int* segment_starts;  // (T,) rows of their texts' first tokens
  const u16* const* norms;  // (layers, 4): input norm, mlp norm, q norm, k norm; one more: final norm
  const float* cosines;
  const float* sines;
  u16* scaled;
  u16* qkv;
  u16* gated;
  float* squares;       // (CLUSTERS, T)
  float* head_squares;  // (QKV_TILES, T)
  float* out;           // (64, HIDDEN): one row per text
  u32* counters;        // (CLUSTERS + 1, 32), one of two sets
  int layers;
};

struct Consumer {
  u32 base, warp, lane, g, q, cluster, rank;
  u32 peer, group;  // of the tiles of a block this warp takes the 8 x group + rank th, for tokens 8 x peer ..
  u32 squad, part;  // its group of four warps, and its 16 of their 64 rows
  bool reduces;
  Share hidden;
  u32 slot, slot_phase;    // ring of weights
  u32 all_rows;            // turn of the rows that come together
  u32 act_bits;            // of each place of the ring of rows that come box by box
  u32 given[3], received;  // sums sent to the owners of this warp's pairs and tile, and taken
  u32 qkv_phase, all_phase;
  int position[2];
  float x[OWN][4];
};

// The tile of a block of CONSUMERS whose sums this warp adds up, with the other warps of its group.
DEV u32 own_tile(const Consumer& c, u32 block) { return CONSUMERS * block + 8 * c.group + c.rank; }

DEV void step_slots(u32& slot, u32& phase, u32 by) {
  slot += by;
  if (slot >= SLOTS) {
    slot -= SLOTS;
    phase ^= 1;
  }
}

// This squad's 64 rows times a box of rows: started, not awaited.
DEV void multiply(Consumer& c, float (&sums)[NT][4], u32 act, u32 slot, u32 phase) {
  // Another squad had this place before: only once it is done with it do two turns of `full` not look the
  // same.
  bar_wait(c.base + W_FREE + 8 * slot, phase ^ 1);
  bar_wait(c.base + W_FULL + 8 * slot, phase);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  const u64 left = box_descriptor(c.base + RING + slot * SLOT),
            right = box_descriptor(c.base + ACT_AT + act * BOX);
#pragma unroll
  for (int k = 0; k < 4; k++) wgmma(sums, left + 2 * k, right + 2 * k);
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// How many blocks have a tile of this place.
DEV u32 turns(u32 tiles, u32 place) { return (tiles + CONSUMERS - 1 - place) / CONSUMERS; }

// The first of the two tiles of a block of which this warp has a half.
DEV u32 pair_of(const Consumer& c) { return 4 * c.squad + 2 * (c.part >> 1); }

DEV void account(Consumer& c, u32 tiles) {
  const u32 pair = pair_of(c);
  c.given[0] += turns(tiles, pair);
  c.given[1] += turns(tiles, pair + 1);
  c.given[2] += turns(tiles, 4 * c.squad + c.part);
}

// Waits until the owner of tile `place` of a block has room for its `use`th sums; where they go.
DEV void room(Consumer& c, u32 place, u32 use, u32& to, u32& bar) {
  const u32 rank = place & 7, group = place >> 3;
  bar_wait(c.base + CREDIT + 16 * rank + 8 * group, (use & 1) ^ 1);
  to = at_rank(c.base + RECV_AT + group * (RANKS * PART) + c.rank * PART, rank);
  bar = at_rank(c.base + RECV_FULL + 8 * group, rank);
}

// Rows g (half 0) or g + 8 (half 1) of sums, to one half of a tile's place: 16 bytes a lane as long as there
// are two groups of tokens, side by side, because scattered bytes are slow to send.
DEV void send_half(float (&sums)[NT][4], int half, u32 to, u32 bar) {
#pragma unroll
  for (int j = 0; j + 1 < NT; j += 2) {
    const float v[4] = {sums[j][2 * half], sums[j][2 * half + 1], sums[j + 1][2 * half],
                        sums[j + 1][2 * half + 1]};
    send(to + j * 256 + lane_id() * 16, bar, v);
  }
  if (NT & 1)
    send2(to + (NT - 1) * 256 + lane_id() * 8, bar, sums[NT - 1][2 * half], sums[NT - 1][2 * half + 1]);
}

// Of 64 rows each 32 are two tiles, first their lower halves: a warp has a half of two.
DEV void give_halves(Consumer& c, float (&sums)[NT][4], u32 block) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    u32 to, bar;
    room(c, pair_of(c) + i, c.given[i] + block, to, bar);
    send_half(sums, i, to + (c.part & 1) * (PART / 2), bar);
  }
}

DEV void give_tile(Consumer& c, float (&sums)[NT][4], u32 block) {
  u32 to, bar;
  room(c, 4 * c.squad + c.part, c.given[2] + block, to, bar);
  send_half(sums, 0, to, bar);
  send_half(sums, 1, to + PART / 2, bar);
}

// The ranks may send to this group's place again.
DEV void credit(Consumer& c) {
  if (c.lane < RANKS) bar_arrive_remote(at_rank(c.base + CREDIT + 16 * c.rank + 8 * c.group, c.lane));
}

DEV void take(Consumer& c, float (&total)[4], bool withheld) {
  bar_wait(c.base + RECV_FULL + 8 * c.group, c.received & 1);
  c.received++;
  if (c.peer == 0 && c.lane == 0) bar_expect(c.base + RECV_FULL + 8 * c.group, RANKS * PART);
  const bool alone = NT & 1 && c.peer == NT - 1;
  const u32 from = c.base + RECV_AT + c.group * (RANKS * PART) +
                   (alone ? c.peer * 256 + c.lane * 8 : (c.peer & ~1) * 256 + c.lane * 16 + (c.peer & 1) * 8);
  float2 parts[RANKS][2];
#pragma unroll
  for (int r = 0; r < RANKS; r++) {
    parts[r][0] = load_shared2(from + r * PART);
    parts[r][1] = load_shared2(from + r * PART + PART / 2);
  }
  total[0] = total[1] = total[2] = total[3] = 0;
#pragma unroll
  for (int r = 0; r < RANKS; r++) {
    total[0] += parts[r][0].x;
    total[1] += parts[r][0].y;
    total[2] += parts[r][1].x;
    total[3] += parts[r][1].y;
  }
  __syncwarp();
  if (!withheld) credit(c);
}

// Says to all that what this CTA's reducers have stored is there. One thread fences for them all: a fence a
// warp made a pass of 36 layers 0.17 ms longer on an H100.
DEV void signal(const Args& a, Consumer& c) {
  fence_global();
  asm volatile("bar.sync 2, %0;" ::"n"(32 * GROUPS * REDUCERS) : "memory");
  if (threadIdx.x == 0) {
    fence_gpu();
    add_one(a.counters + 32 * c.cluster);
  }
}

// A tile of the residual stream, multiplied by the next norm's weights, to where all read it.
DEV void residual(const Args& a, Consumer& c, const float (&x)[4], u32 tile, float w0, float w1) {
  // 16 columns of a token are 32 bytes, a sector, stored whole.
  const u32 low = turned(pack(x[0] * w0, x[1] * w0)), high = turned(pack(x[2] * w1, x[3] * w1));
  const u32 from = (c.lane & ~3) | (2 * c.q & 3);
  const u32 l0 = __shfl_sync(~0u, low, from), l1 = __shfl_sync(~0u, low, from + 1);
  const u32 h0 = __shfl_sync(~0u, high, from), h1 = __shfl_sync(~0u, high, from + 1);
  *(uint2*)(a.scaled + (8 * c.peer + c.g) * HIDDEN + (c.hidden.first + tile) * 16 + 4 * c.q) =
      c.q < 2 ? make_uint2(l0, l1) : make_uint2(h0, h1);
}

// Over the eight rows of a matrix that lanes of the same tokens have.
DEV void add_over_rows(float (&v)[2]) {
#pragma unroll
  for (int by = 4; by < 32; by *= 2) {
    v[0] += __shfl_xor_sync(~0u, v[0], by);
    v[1] += __shfl_xor_sync(~0u, v[1], by);
  }
}

// The squares of a tile of the residual stream, to the cluster's first CTA, which adds them up.
DEV void give_squares(Consumer& c, const float (&x)[4], u32 tile) {
  float squares[2] = {x[0] * x[0] + x[2] * x[2], x[1] * x[1] + x[3] * x[3]};
  add_over_rows(squares);
  const u32 to = c.base + SQUARES_AT + (tile * T + 8 * c.peer + 2 * c.q) * 4;
  if (c.g == 0) send2(at_rank(to, 0), at_rank(c.base + SQUARES_FULL, 0), squares[0], squares[1]);
}

// The residual stream is there: first its rows, which all wait for, then its squares, which products need
// only at their ends.
DEV void announce(const Args& a, Consumer& c) {
  signal(a, c);
#pragma unroll
  for (int t = 0; t < OWN; t++) {
    const u32 mine = own_tile(c, t);
    if (mine < c.hidden.count) give_squares(c, c.x[t], mine);
  }
}

// 1 / root of the squares' sum by `count`, of this lane's two tokens.
DEV void scales(const Args& a, Consumer& c, float (&scale)[2], float count, float eps) {
  bar_wait(c.base + SQUARES_READY, c.all_phase);
  c.all_phase ^= 1;
  // A lane has a cluster's squares of tokens 0..3 or 4..7.
  float4 v = make_float4(0, 0, 0, 0);
  if (c.lane >> 1 < CLUSTERS) v = load_float4(a.squares + (c.lane >> 1) * T + 8 * c.peer + 4 * (c.lane & 1));
  float sum[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int by = 2; by < 32; by *= 2)
#pragma unroll
    for (int i = 0; i < 4; i++) sum[i] += __shfl_xor_sync(~0u, sum[i], by);
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const float even = __shfl_sync(~0u, sum[i], c.q >> 1), odd = __shfl_sync(~0u, sum[2 + i], c.q >> 1);
    scale[i] = rsqrtf((c.q & 1 ? odd : even) / count + eps);
  }
}

// What a tile of queries or keys is turned with, fetched before it is needed.
struct Turn {
  float low, high, cosine[2], sine[2];
};
DEV Turn turn_of(const Args& a, Consumer& c, u32 tile, const u16* q_norm, const u16* k_norm) {
  const u32 head = tile / 8, d = (tile & 7) * 8 + c.g;
  Turn t{1, 1, {1, 1}, {0, 0}};
  if (head < RANKS * (GROUP + 1)) {
    const u16* norm = head < RANKS * GROUP ? q_norm : k_norm;
    t.low = wide(norm[d]);
    t.high = wide(norm[64 + d]);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      t.cosine[i] = a.cosines[c.position[i] * 64 + d];
      t.sine[i] = a.sines[c.position[i] * 64 + d];
    }
  }
  return t;
}

// A reduced tile of qkv: 8 inputs of a head and the 8 that turn with them; or of gate and up. The head's own
// root mean square is left to whoever attends.
template <bool GATED>
DEV void store_tile(const Args& a, Consumer& c, const float (&v)[4], u32 tile, const float (&scale)[2],
                    const Turn& t) {
  if constexpr (GATED) {
    float out[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const float gate = v[i] * scale[i], up = v[i + 2] * scale[i];
      out[i] = gate / (1.0f + __expf(-gate)) * up;
    }
    *(u32*)(a.gated + (8 * c.peer + c.g) * INTER + tile * 8 + 2 * c.q) = turned(pack(out[0], out[1]));
  } else {
    float squares[2], low[2], high[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const float l = v[i] * scale[i], h = v[i + 2] * scale[i];
      squares[i] = l * l + h * h;
      const float x = l * t.low, y = h * t.high;
      low[i] = x * t.cosine[i] - y * t.sine[i];
      high[i] = y * t.cosine[i] + x * t.sine[i];
    }
    u16* to = a.qkv + (8 * c.peer + c.g) * QKV + tile / 8 * HEAD + (tile & 7) * 8 + 2 * c.q;
    *(u32*)to = turned(pack(low[0], low[1]));
    *(u32*)(to + 64) = turned(pack(high[0], high[1]));
    add_over_rows(squares);
    if (c.g == 0)
      *(float2*)(a.head_squares + tile * T + 8 * c.peer + 2 * c.q) = make_float2(squares[0], squares[1]);
  }
}

// qkv, or gate and up: blocks of a tile a warp, over rows that stay.
template <bool GATED>
DEV void wide_product(const Args& a, Consumer& c, Share share, const u16* q_norm, const u16* k_norm) {
  const u32 tiles = share.count;
  float scale[2] = {0, 0};
  const u32 blocks = (tiles + CONSUMERS - 1) / CONSUMERS;
  for (u32 b = 0; b <= blocks; b++) {
    const u32 mine = own_tile(c, b - 1);  // in the block before
    const bool taking = b > 0 && mine < tiles && c.reduces;
    Turn turn;
    if (!GATED && taking) turn = turn_of(a, c, share.first + mine, q_norm, k_norm);
    if (b < blocks) {
      float sums[NT][4];
      clear(sums);
      const u32 slots = (min(tiles - CONSUMERS * b, CONSUMERS) + 3) / 4;
      const bool active = c.squad < slots;
      u32 slot = c.slot, slot_phase = c.slot_phase;
      step_slots(slot, slot_phase, c.squad);
      if (b == 0) {
        bar_wait(c.base + A_ALL, c.all_rows);
        c.all_rows ^= 1;
      }
#pragma unroll 1
      for (int k = 0; k < HIDDEN_BOXES; k++) {
        if (active) {
          multiply(c, sums, k, slot, slot_phase);
          wgmma_wait();
          if (c.lane == 0) bar_arrive(c.base + W_FREE + 8 * slot);
          step_slots(slot, slot_phase, slots);
        }
        if (k == HIDDEN_BOXES / 2 && taking) {
          float v[4];
          take(c, v, mine + CONSUMERS >= tiles);
          store_tile<GATED>(a, c, v, share.first + mine, scale, turn);
        }
      }
      step_slots(c.slot, c.slot_phase, slots * HIDDEN_BOXES % SLOTS);
      if (slots * HIDDEN_BOXES / SLOTS & 1) c.slot_phase ^= 1;
      if (b == blocks - 1 && c.lane == 0) bar_arrive(c.base + A_DONE);
      if (pair_of(c) < tiles - CONSUMERS * b) give_halves(c, sums, b);
    } else if (taking) {
      float v[4];
      take(c, v, true);
      store_tile<GATED>(a, c, v, share.first + mine, scale, turn);
    }
    if (b == 0) {
      if (c.reduces)
        scales(a, c, scale, HIDDEN, EPS);
      else
        c.all_phase ^= 1;
    }
  }
  account(c, tiles);
  if (!GATED) {
    __syncwarp();
    if (c.lane == 0) bar_arrive(c.base + KV_FREE);
  }
  if (c.reduces) signal(a, c);
  // After the signal, which would wait for this to arrive; queries, keys and values will lie where sums do.
  if (GATED && c.reduces && own_tile(c, 0) < tiles) credit(c);
}

// out or down: all tiles in one go over this rank's inputs; rows are there, or come box by box.
DEV void narrow_product(const Args& a, Consumer& c, int boxes, const u16* norm, bool last, bool there) {
  float sums[OWN][NT][4];
#pragma unroll
  for (int t = 0; t < OWN; t++) clear(sums[t]);
  const u32 slots = (c.hidden.count + 3) / 4;
  u32 act = 0;
#pragma unroll 1
  for (int k = 0; k < boxes; k++) {
    if (!there) {
      bar_wait(c.base + A_FULL + 8 * act, c.act_bits >> act & 1);
      c.act_bits ^= 1 << act;
    }
#pragma unroll
    for (int t = 0; t < OWN; t++)
      if (c.squad + SQUADS * t < slots) {
        u32 slot = c.slot, phase = c.slot_phase;
        step_slots(slot, phase, c.squad + SQUADS * t);
        multiply(c, sums[t], act, slot, phase);
      }
    wgmma_wait();
    if (c.lane == 0) {
      if (!there) bar_arrive(c.base + A_FREE + 8 * act);
#pragma unroll
      for (int t = 0; t < OWN; t++)
        if (c.squad + SQUADS * t < slots) {
          u32 slot = c.slot, phase = 0;
          step_slots(slot, phase, c.squad + SQUADS * t);
          bar_arrive(c.base + W_FREE + 8 * slot);
        }
    }
    step_slots(c.slot, c.slot_phase, slots);
    if (++act == ACTS) act = 0;
  }
  if (there && c.lane == 0) bar_arrive(c.base + A_DONE);
#pragma unroll
  for (int t = 0; t < OWN; t++) {
    const u32 mine = own_tile(c, t);
    float w0 = 0, w1 = 0;
    if (mine < c.hidden.count && c.reduces) {
      w0 = wide(norm[(c.hidden.first + mine) * 16 + c.g]);
      w1 = wide(norm[(c.hidden.first + mine) * 16 + c.g + 8]);
    }
    if (c.warp + CONSUMERS * t < c.hidden.count) give_tile(c, sums[t], t);
    if (mine < c.hidden.count && c.reduces) {
      float v[4];
      take(c, v, mine + CONSUMERS >= c.hidden.count);
#pragma unroll
      for (int i = 0; i < 4; i++) c.x[t][i] += v[i];
      if (last) {
#pragma unroll
        for (int i = 0; i < 4; i++) c.x[t][i] *= i < 2 ? w0 : w1;
      } else {
        residual(a, c, c.x[t], mine, w0, w1);
      }
    }
  }
  account(c, c.hidden.count);
  if (c.reduces) announce(a, c);
  if (c.reduces && own_tile(c, 0) < c.hidden.count) credit(c);
}

// The states of texts' last tokens as unit rows, a text after the other.
DEV void finish(const Args& a, Consumer& c) {
  // Bits of the tokens that are their texts' first: the one before each is a last one.
  u64 firsts = __ballot_sync(~0u, c.lane < T && a.segment_starts[min(c.lane, T - 1)] == c.lane);
  const u32 other = c.lane + 32;
  firsts |= (u64)__ballot_sync(~0u, other < T && a.segment_starts[min(other, T - 1)] == other) << 32;
  if (!c.reduces) return;
  float scale[2];
  scales(a, c, scale, 1, 1e-24f);
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const u32 token = 8 * c.peer + 2 * c.q + i;
    if (token + 1 < T && !(firsts >> (token + 1) & 1)) continue;
    float* to = a.out + (__popcll(firsts << (63 - token)) - 1) * HIDDEN + c.hidden.first * 16 + c.g;
#pragma unroll
    for (int t = 0; t < OWN; t++) {
      const u32 mine = own_tile(c, t);
      if (mine < c.hidden.count) {
        to[mine * 16] = c.x[t][i] * scale[i];
        to[mine * 16 + 8] = c.x[t][i + 2] * scale[i];
      }
    }
  }
}

DEV u32 box_at(u32 boxes, u32 column,
               u32 row) {  // 16 bytes of `column` (multiple of 8) in swizzled boxes of 64
  return boxes + (column >> 6) * BOX + row * 128 + ((((column >> 3) & 7) ^ (row & 7)) << 4);
}

// Attention of this rank's heads; its result takes the queries' place.
DEV void attend(const Args& a, Consumer& c) {
  // Worked out anew each time: kept over all the other phases these would not stay in registers.
  const u32 thread = afresh(threadIdx.x), warp = thread >> 5, lane = thread & 31, g = lane >> 2, q = lane & 3;
  const u32 a_row = lane & 15, a_x = (lane >> 4 ^ lane & 7) << 4;
  const u32 b_row = lane & 7 | lane >> 1 & 8, b_x = (lane >> 3 & 1 ^ lane & 7) << 4;
  constexpr int JOBS = GROUP * T / 16;
  const u32 k_at = c.base + KV_AT, v_at = k_at + 2 * BOX;
  int segment_starts[2];  // of the texts of rows g and g + 8
#pragma unroll
  for (int i = 0; i < 2; i++) segment_starts[i] = a.segment_starts[(16 * warp + g + 8 * i) % T];
  bar_wait(c.base + QKV_READY, c.qkv_phase);
  static_assert(JOBS <= CONSUMERS, "a warp each");
  if (warp < JOBS) {
    const u32 job = warp;
    const u32 mine = 16 * job + a_row;  // the row this lane points ldmatrix to
    const u32 head = mine / T, token = mine % T;
    const u32 first = c.base + ACT_AT + (2 * head) * BOX + token * 128,
              second = c.base + ACT_AT + (2 * head + 1) * BOX + token * 128;
    // No row of the tile sees keys beyond its last one.
    const u32 seen = (16 * job) / T == (16 * job + 15) / T ? (16 * job + 15) % T : T - 1;
    float scores[NT][4];
    clear(scores);
#pragma unroll
    for (int k = 0; k < 8; k++) {
      u32 queries[4];
      ldm4(queries, (k < 4 ? first : second) + (a_x ^ ((k & 3) << 5)));
      const u32 keys = k_at + (k >> 2) * BOX;
#pragma unroll
      for (int j = 0; j + 1 < NT; j += 2) {
        if (8 * j > seen) continue;
        u32 four[4];
        ldm4(four, keys + b_row * 128 + j * 1024 + (b_x ^ ((k & 3) << 5)));
        mma(scores[j], queries, four[0], four[1]);
        mma(scores[j + 1], queries, four[2], four[3]);
      }
      if (NT & 1 && 8 * (NT - 1) <= seen) {
        u32 b0, b1;
        ldm2(b0, b1,
             keys + (NT - 1) * 1024 + (lane & 7) * 128 +
                 ((((lane >> 3) & 1) ^ (lane & 7)) << 4 ^ ((k & 3) << 5)));
        mma(scores[NT - 1], queries, b0, b1);
      }
    }
    bar_wait(c.base + ROOTS_READY, c.qkv_phase);
    float share[2] = {load_float(c.base + ROOTS_AT + 4 * (16 * job + g)) * SCALE_LOG2,
                      load_float(c.base + ROOTS_AT + 4 * (16 * job + g + 8)) * SCALE_LOG2};
#pragma unroll
    for (int j = 0; j < NT; j++)
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const float by = load_float(c.base + ROOTS_AT + 4 * (GROUP * T + 8 * j + 2 * q + i));
        scores[j][i] *= by;
        scores[j][2 + i] *= by;
      }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = (16 * job + g + 8 * half) % T;
      const int start = segment_starts[half];
      const u32 span = row - start;
      float most = -1e30f;
#pragma unroll
      for (int j = 0; j < NT; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const int key = 8 * j + 2 * q + i;
          float& s = scores[j][2 * half + i];
          s = (u32)(key - start) <= span ? s * share[half] : -1e30f;
          most = fmaxf(most, s);
        }
      most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
      most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
      float sum = 0;
#pragma unroll
      for (int j = 0; j < NT; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
          float& s = scores[j][2 * half + i];
          s = power_of_two(s - most);
          sum += s;
        }
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      share[half] = 1.0f / sum;
    }
    u32 p[(NT + 1) / 2][4];
#pragma unroll
    for (int k = 0; k < (NT + 1) / 2; k++) {
      p[k][0] = pack(scores[2 * k][0] * share[0], scores[2 * k][1] * share[0]);
      p[k][1] = pack(scores[2 * k][2] * share[1], scores[2 * k][3] * share[1]);
      if (2 * k + 1 < NT) {
        p[k][2] = pack(scores[2 * k + 1][0] * share[0], scores[2 * k + 1][1] * share[0]);
        p[k][3] = pack(scores[2 * k + 1][2] * share[1], scores[2 * k + 1][3] * share[1]);
      } else {
        p[k][2] = p[k][3] = 0;
      }
    }
    __syncwarp();
#pragma unroll 1
    for (int part = 0; part < 4; part++) {  // 32 of 128 numbers
      float accumulator[4][4];
      clear(accumulator);
#pragma unroll
      for (int k = 0; k < (NT + 1) / 2; k++) {
        if (16 * k > seen) continue;
        u32 key = 16 * k + a_row;
        if (key >= T) key -= 8;  // times nothing, but must be a number
#pragma unroll
        for (int n = 0; n < 4; n += 2) {
          u32 v[4];
          ldm4t(v, box_at(v_at, 32 * part + 8 * (n + (lane >> 4)), key));
          mma(accumulator[n], p[k], v[0], v[1]);
          mma(accumulator[n + 1], p[k], v[2], v[3]);
        }
      }
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const u32 at = c.base + ACT_AT + (2 * ((16 * job + g + 8 * half) / T) + part / 2) * BOX,
                  t = (16 * job + g + 8 * half) % T;
#pragma unroll
        for (int n = 0; n < 4; n++)
          store_shared(box_at(at, 32 * (part & 1) + 8 * n, t) + 4 * q,
                       pack(accumulator[n][2 * half], accumulator[n][2 * half + 1]));
      }
    }
  }
  c.qkv_phase ^= 1;
  fence_shared();  // what reads there, and writes next, goes another way to memory
  meet();
  if (c.reduces) credit(c);
}

DEV void consume(const Args& a, u32 base, u32 cluster, u32 rank) {
  Consumer c;
  c.base = base;
  c.cluster = cluster;
  c.rank = rank;
  c.hidden = share_of(cluster, HIDDEN_TILES, 1);
  c.warp = threadIdx.x >> 5;
  c.peer = c.warp & 7;
  c.group = c.warp >> 3;
  c.squad = c.warp >> 2;
  c.part = c.warp & 3;
  c.reduces = c.peer < REDUCERS;
  c.lane = lane_id();
  c.g = c.lane >> 2;
  c.q = c.lane & 3;
  c.slot = c.slot_phase = c.act_bits = c.all_rows = c.given[0] = c.given[1] = c.given[2] = c.received =
      c.qkv_phase = c.all_phase = 0;
  if (c.reduces) {
    c.position[0] = a.position_ids[8 * c.peer + 2 * c.q];
    c.position[1] = a.position_ids[8 * c.peer + 2 * c.q + 1];
#pragma unroll
    for (int t = 0; t < OWN; t++) {
      const u32 tile = CONSUMERS * t + 8 * c.group + rank;
      if (tile < c.hidden.count) {
        const u32 column = (c.hidden.first + tile) * 16 + c.g, token = 8 * c.peer + 2 * c.q;
#pragma unroll
        for (int i = 0; i < 4; i++)
          c.x[t][i] = wide(a.embedding[(u64)a.tokens[token + (i & 1)] * HIDDEN + column + 8 * (i >> 1)]);
        residual(a, c, c.x[t], tile, wide(a.norms[0][column]), wide(a.norms[0][column + 8]));
      }
    }
    announce(a, c);
  }
  for (int layer = 0; layer < a.layers; layer++) {
    const u16* const* norms = a.norms + 4 * layer;
    wide_product<false>(a, c, share_of(cluster, QKV_TILES, 2), norms[2], norms[3]);
    attend(a, c);
    narrow_product(a, c, HEAD_BOXES, norms[1], false, true);
    wide_product<true>(a, c, share_of(cluster, INTER_TILES, 2), nullptr, nullptr);
    narrow_product(a, c, INTER_BOXES, norms[4], layer == a.layers - 1, false);
  }
  finish(a, c);
}

// Weights depend on nothing: they come over the borders of products and layers. No more of them are under way
// at once than memory needs: more would only queue, and what clusters leave each other behind them.
DEV void fetch_weights(const Args& a, u32 base, u32 cluster, u32 rank) {
  const bool leader = lane_id() == 0;
  u32 slot = 0, phase = 0, last = 0, last_phase = 0, under_way = 0, step = 0;
  // Rows of a slot that a step does not fill keep what they had, and their sums go nowhere.
  auto take_slot = [&](u32 tiles) {
    const u32 most = step++ < SLOTS ? UNDER_WAY_AT_BORDERS : UNDER_WAY;
    bar_wait(base + W_FREE + 8 * slot, phase ^ 1);
    while (under_way >= most) {
      bar_wait(base + W_FULL + 8 * last, last_phase);
      step_slots(last, last_phase, 1);
      under_way--;
    }
    under_way++;
    if (leader) bar_expect(base + W_FULL + 8 * slot, 2048 * tiles);
    return base + RING + slot * SLOT;
  };
  auto leave_slot = [&] {
    __syncwarp();
    step_slots(slot, phase, 1);
  };
  auto wide_step = [&](const char* maps, int column, u32 first, u32 end, bool gated) {
#pragma unroll 1
    for (u32 t = first; t < end; t += 4) {
      const u32 pair = t / 2, head = gated ? 0 : pair / 4, in_head = gated ? pair : pair % 4;
      const bool both = t + 2 < end;
      const u32 to = take_slot(both ? 4 : 2), full = base + W_FULL + 8 * slot;
      if (leader) {
        if (both && (gated || in_head < 3)) {  // not over a head's end
          fetch_pairs(to, maps, column, in_head, head, full);
        } else {
          fetch_pairs(to, maps + 128, column, in_head, head, full);
          if (both) fetch_pairs(to + SLOT / 2, maps + 128, column, 0, head + 1, full);
        }
      }
      leave_slot();
    }
  };
  auto narrow_step = [&](const char* maps, int column, Share share) {
#pragma unroll 1
    for (u32 t = 0; t < share.count; t += 4) {
      const u32 here = min(share.count - t, 4), row = (share.first + t) * 16;
      const u32 to = take_slot(here), full = base + W_FULL + 8 * slot;
      if (leader) {
        if (here == 4)
          fetch(to, maps, column, row, full);
        else
#pragma unroll 1
          for (u32 i = 0; i < here; i++) fetch(to + 2048 * i, maps + 128, column, row + 16 * i, full);
      }
      leave_slot();
    }
  };
  const Share qkv = share_of(cluster, QKV_TILES, 2), hidden = share_of(cluster, HIDDEN_TILES, 1),
              inter = share_of(cluster, INTER_TILES, 2);
#pragma unroll 1
  for (int turn = 0; turn < 2 * a.layers; turn++) {
    const char* maps = a.maps + turn * 512;
    const bool gated = turn & 1;
    const Share share = gated ? inter : qkv;
    step = 0;
#pragma unroll 1
    for (u32 b = 0; b < share.count; b += CONSUMERS)
#pragma unroll 1
      for (int k = 0; k < HIDDEN_BOXES; k++)
        wide_step(maps, (rank * HIDDEN_BOXES + k) * 64, share.first + b,
                  share.first + min(b + CONSUMERS, share.count), gated);
    const int boxes = gated ? INTER_BOXES : HEAD_BOXES;
    step = 0;
#pragma unroll 1
    for (int k = 0; k < boxes; k++) narrow_step(maps + 256, (rank * boxes + k) * 64, hidden);
  }
}

// Until the clusters in `mask` have signalled `phases` times. Loads are relaxed, because one that acquires
// empties the first-level cache each time it looks, and angles and norms are in there. What is read
// afterwards is read from the second-level cache, and not asked for before the last counter has been seen.
DEV void await(const Args& a, u32 mask, u32 phases) {
  const u32 wanted = phases * RANKS, lane = lane_id();
  const bool mine = mask >> lane & 1;
  while (!__all_sync(~0u, !mine || load_relaxed(a.counters + 32 * lane) >= wanted)) {
  }
}

DEV u32 clusters_of(u32 first, u32 count, u32 total, u32 unit) {  // mask of those that make tiles first..
  u32 mask = 0;
  for (u32 c = 0; c < CLUSTERS; c++) {
    const Share share = share_of(c, total, unit);
    if (share.first < first + count && first < share.first + share.count) mask |= 1u << c;
  }
  return mask;
}

DEV u32 heads_of(u32 rank) {
  return clusters_of(rank * GROUP * 8, GROUP * 8, QKV_TILES, 2) |
         clusters_of(Q_WIDTH / 16 + rank * 8, 8, QKV_TILES, 2) |
         clusters_of((Q_WIDTH + KV_WIDTH) / 16 + rank * 8, 8, QKV_TILES, 2);
}

DEV void await_count(const u32* counter, u32 wanted) {
  while (load_relaxed(counter) < wanted) {
  }
}

// The squares of the cluster's columns of the residual stream, of all its CTAs; one warp.
DEV void add_squares(const Args& a, u32 base, u32 cluster, Share hidden, u32 turn) {
  const u32 lane = lane_id();
  bar_wait(base + SQUARES_FULL, turn & 1);
  if (lane == 0) bar_expect(base + SQUARES_FULL, hidden.count * T * 4);
  for (u32 token = lane; token < T; token += 32) {
    float sum = 0;
#pragma unroll 4
    for (u32 tile = 0; tile < hidden.count; tile++)
      sum += load_float(base + SQUARES_AT + (tile * T + token) * 4);
    a.squares[cluster * T + token] = sum;
  }
  __syncwarp();
  if (lane == 0) {
    fence_gpu();
    add_one(a.counters + 32 * CLUSTERS);
  }
  __syncwarp();
}

// Roots of mean squares of this rank's heads; 64 threads. One of them says when all rows' squares are there.
DEV void find_roots(const Args& a, u32 base, u32 cluster, u32 rank) {
  const u32 heads = heads_of(rank), thread = threadIdx.x & 63;
  const Share hidden = share_of(cluster, HIDDEN_TILES, 1);
  if (rank == 0 && thread == 32) bar_expect(base + SQUARES_FULL, hidden.count * T * 4);
  constexpr int ROWS = (GROUP + 1) * T;
  u32 phases = 0;
#pragma unroll 1
  for (int turn = 0; turn <= 2 * a.layers; turn++) {
    phases += 2;
    if (thread == 0) {
      await_count(a.counters + 32 * CLUSTERS, CLUSTERS * (turn + 1));
      bar_arrive(base + SQUARES_READY);
    } else if (thread >= 32 && rank == 0) {
      add_squares(a, base, cluster, hidden, turn);
    }
    __syncwarp();
    if (turn & 1 || turn == 2 * a.layers) continue;
    await(a, heads, phases);
#pragma unroll 1
    for (u32 first = thread; first < ROWS; first += 128) {
      float v[2][8];  // two rows' at once: the way to the cache and back is long
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const u32 row = min(first + 64 * i, ROWS - 1);
        const u32 head = row < GROUP * T ? rank * GROUP + row / T : RANKS * GROUP + rank;
#pragma unroll
        for (int n = 0; n < 8; n++) v[i][n] = load_global(a.head_squares + (head * 8 + n) * T + row % T);
      }
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const float sum = v[i][0] + v[i][1] + v[i][2] + v[i][3] + v[i][4] + v[i][5] + v[i][6] + v[i][7];
        if (first + 64 * i < ROWS)
          store_float(base + ROOTS_AT + 4 * (first + 64 * i), rsqrtf(sum / HEAD + EPS));
      }
    }
    __syncwarp();
    if (lane_id() == 0) bar_arrive(base + ROOTS_READY);
  }
}

DEV void fetch_rows(const Args& a, u32 base, u32 rank) {
  u32 phases = 0, turn = 0, free_bits = (1 << ACTS) - 1;
  const bool leader = lane_id() == 0;
  const u32 hidden = clusters_of(rank * HIDDEN_BOXES * 4, HIDDEN_BOXES * 4, HIDDEN_TILES, 1);
  const u32 inter = clusters_of(rank * INTER_BOXES * 8, INTER_BOXES * 8, INTER_TILES, 2);
  const u32 heads = heads_of(rank);
  const char *hidden_map = a.row_maps, *gated_map = a.row_maps + 128, *queries_map = a.row_maps + 256,
             *keys_map = a.row_maps + 384;
  // The ring's boxes are used one by one for `gated` only; otherwise from the first on, all together.
  auto together = [&](const char* map, int box, int count) {
    bar_wait(base + A_DONE, turn++ & 1 ^ 1);
    bar_expect(base + A_ALL, count * BOX);
    fetch_boxes(base + ACT_AT, map, box, base + A_ALL);
  };
#pragma unroll 1
  for (int layer = 0; layer < a.layers; layer++) {
#pragma unroll 1
    for (int half = 0; half < 2; half++) {
      await(a, hidden, ++phases);
      fence_global();
      if (leader) {
        if (!half)
          for (int i = 0; i < ACTS; i++) bar_wait(base + A_FREE + 8 * i, free_bits >> i & 1);
        together(hidden_map, rank * HIDDEN_BOXES, HIDDEN_BOXES);
      }
      __syncwarp();
      await(a, half ? inter : heads, ++phases);
      fence_global();
      if (leader && !half) {
        bar_wait(base + A_DONE, turn++ & 1 ^ 1);
        bar_wait(base + KV_FREE, layer & 1);
        const u32 ready = base + QKV_READY;
        bar_expect(ready, (4 + HEAD_BOXES) * BOX);
        fetch_boxes(base + ACT_AT, queries_map, rank * HEAD_BOXES, ready);
        fetch_boxes(base + KV_AT, keys_map, Q_WIDTH / 64 + rank * 2, ready);
        fetch_boxes(base + KV_AT + 2 * BOX, keys_map, (Q_WIDTH + KV_WIDTH) / 64 + rank * 2, ready);
      }
      if (leader && half) {
        bar_wait(base + A_DONE, turn & 1 ^ 1);
        u32 act = 0;
#pragma unroll 1
        for (int k = 0; k < INTER_BOXES; k++) {
          bar_wait(base + A_FREE + 8 * act, free_bits >> act & 1);
          free_bits ^= 1 << act;
          bar_expect(base + A_FULL + 8 * act, BOX);
          fetch(base + ACT_AT + act * BOX, gated_map, (rank * INTER_BOXES + k) * 64, 0,
                base + A_FULL + 8 * act);
          if (++act == ACTS) act = 0;
        }
      }
      __syncwarp();
    }
  }
}

extern "C" __global__ void __cluster_dims__(RANKS, 1, 1) __launch_bounds__(640, 1)
    small_batch(const char* maps, const char* row_maps, const u16* embedding, const int* tokens,
               const int* position_ids, const int* segment_starts, const u16* const* norms, const float* cosines,
               const float* sines, u16* scaled, u16* qkv, u16* gated, float* squares, float* head_squares,
               float* out, u32* counting, int layers) {
  extern __shared__ __align__(1024) char memory[];
  // Passes count in two sets in turn, each in the one that the pass before it has cleared.
  constexpr u32 SET = 32 * (CLUSTERS + 1);
  const u32 pass = load_relaxed(counting);
  u32* counters = counting + 32 + (pass & 1) * SET;
  if (blockIdx.x == 0 && threadIdx.x <= CLUSTERS) counting[32 + (~pass & 1) * SET + 32 * threadIdx.x] = 0;
  const Args a{maps,   row_maps, embedding, tokens,  position_ids, segment_starts, norms, cosines, sines,
               scaled, qkv,      gated,     squares, head_squares, out,    counters, layers};
  u32 base;
  asm("{ .reg .u64 p; cvta.to.shared.u64 p, %1; cvt.u32.u64 %0, p; }" : "=r"(base) : "l"(memory));
  if (base & 1023) asm volatile("trap;");
  u32 rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  const u32 cluster = blockIdx.x / RANKS;
  if (threadIdx.x == 0) {
    for (int i = 0; i < SLOTS; i++) {
      bar_init(base + W_FULL + 8 * i, 1);
      bar_init(base + W_FREE + 8 * i, 4);
    }
    for (int i = 0; i < ACTS; i++) {
      bar_init(base + A_FULL + 8 * i, 1);
      bar_init(base + A_FREE + 8 * i, CONSUMERS);
    }
    for (int i = 0; i < 2; i++) bar_init(base + RECV_FULL + 8 * i, 1);
    for (int i = 0; i < RANKS * GROUPS; i++) bar_init(base + CREDIT + 8 * i, REDUCERS);
    bar_init(base + QKV_READY, 1);
    bar_init(base + SQUARES_READY, 1);
    bar_init(base + ROOTS_READY, 2);
    bar_init(base + KV_FREE, CONSUMERS);
    bar_init(base + A_ALL, 1);
    bar_init(base + A_DONE, CONSUMERS);
    bar_init(base + SQUARES_FULL, 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    for (int i = 0; i < 2; i++) bar_expect(base + RECV_FULL + 8 * i, RANKS * PART);
  }
  __syncthreads();
  meet_cluster();
  const u32 warp = threadIdx.x >> 5;
  if (warp < CONSUMERS) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 104;");
    consume(a, base, cluster, rank);
  } else {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
    if (warp == CONSUMERS + 1)
      fetch_rows(a, base, rank);
    else if (warp > CONSUMERS)
      find_roots(a, base, cluster, rank);
    else
      fetch_weights(a, base, cluster, rank);
  }
  __syncwarp();
  meet_cluster();
  // All have read it: none is done before all have said something.
  if (blockIdx.x == 0 && threadIdx.x == 0) counting[0] = pass + 1;
}
