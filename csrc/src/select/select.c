#include "select.h"

#include <string.h>

#include "../kv_view.h"
#include "methods/method.h"

static int32_t scores_len(const ckv_scores *scores, int32_t b) {
  return scores->kv_lens ? scores->kv_lens[b] : scores->kv_len;
}

typedef struct {
  const ckv_params *params;
  const ckv_method_ops *ops;
  const ckv_query_view *queries;
  const ckv_kv_view *keys;
  const float *mass;
  ckv_scores *scores;
} finish_job;

static void finish_sequence(void *arg, int64_t index, int32_t thread) {
  (void)thread;
  const finish_job *job = arg;
  const int32_t b = (int32_t)index;
  const int32_t n = ckv_kv_len(job->keys, b);
  const int64_t stride = job->keys->kv_len;
  const int32_t kv_heads = job->keys->num_kv_heads;
  float *scores = job->scores->data + index * job->scores->num_heads * stride;
  memset(scores, 0, sizeof(float) * (size_t)(job->scores->num_heads * stride));
  const int32_t window = job->params->window < n ? job->params->window : n;
  if (n == window) return;
  const ckv_finish finish = {
      .params = job->params,
      .num_kv_heads = kv_heads,
      .group = job->queries->num_q_heads / kv_heads,
      .window = window,
      .len = n - window,
      .stride = (int32_t)stride,
      .mass = job->mass + index * kv_heads * stride,
      .scores = scores,
  };
  job->ops->finish(&finish);
}

void ckv_finish_scores(ckv_context *ctx, const ckv_params *params, const ckv_query_view *queries,
                       const ckv_kv_view *keys, const float *mass, ckv_scores *scores) {
  finish_job job = {params, ckv_method_get(params->method), queries, keys, mass, scores};
  ckv_parallel_for(ctx->pool, keys->batch, finish_sequence, &job);
}

// NaN in the scores that count; what is past a sequence's own tokens is never read.
static ckv_status find_nan(ckv_context *ctx, const ckv_params *params, const ckv_scores *scores) {
  for (int32_t b = 0; b < scores->batch; b++) {
    const int32_t n = scores_len(scores, b);
    const int32_t scored = ckv_method_get(params->method)->accumulates ? n : n - params->window;
    for (int32_t h = 0; h < scores->num_heads; h++) {
      const float *row = scores->data + ((int64_t)b * scores->num_heads + h) * scores->kv_len;
      bool nan = false;
      for (int32_t t = 0; t < scored; t++) nan |= row[t] != row[t];
      if (!nan) continue;
      return ckv_fail(
          ctx, CKV_ERROR_NUMERIC,
          "Expected token scores that are numbers but found NaN in sequence %d, head %d", b, h);
    }
  }
  return CKV_OK;
}

typedef struct {
  const ckv_params *params;
  int32_t layer, num_layers;  // num_layers 0: the budget is the layer's own
  const ckv_method_ops *ops;
  const ckv_scores *scores;
  ckv_kept *kept;
  uint64_t *scratch;
  int64_t scratch_stride;
} select_job;

static void select_head(void *arg, int64_t index, int32_t thread) {
  const select_job *job = arg;
  const int32_t b = (int32_t)(index / job->kept->num_heads);
  const int32_t n = scores_len(job->scores, b);
  ckv_params params = *job->params;
  if (job->num_layers > 0) {
    params.budget = ckv_layer_budget(job->params, n, job->layer, job->num_layers);
  }
  const ckv_choice choice = {
      .params = &params,
      .kv_len = n,
      .scores = job->ops->score_heads == CKV_HEADS_NONE
                    ? NULL
                    : job->scores->data + index * job->scores->kv_len,
      .scratch = job->scratch ? job->scratch + thread * job->scratch_stride : NULL,
      .indices = job->kept->indices + index * job->kept->capacity,
  };
  const int32_t count = job->ops->select(&choice);
  // Every head of a sequence keeps equally many; one of them says so.
  if (index % job->kept->num_heads == 0) job->kept->lens[b] = count;
}

ckv_status ckv_select_kept(ckv_context *ctx, const ckv_params *params, const ckv_scores *scores,
                           ckv_kept *kept) {
  return ckv_select_kept_of_layer(ctx, params, 0, 0, scores, kept);
}

ckv_status ckv_select_kept_of_layer(ckv_context *ctx, const ckv_params *params, int32_t layer,
                                    int32_t num_layers, const ckv_scores *scores, ckv_kept *kept) {
  const ckv_method_ops *ops = ckv_method_get(params->method);
  if (ops->score_heads != CKV_HEADS_NONE) {
    const ckv_status status = find_nan(ctx, params, scores);
    if (status) return status;
  }
  select_job job = {params, layer, num_layers, ops, scores, kept, NULL, 0};
  if (ops->scratch) {
    job.scratch_stride = ops->scratch(params, scores->kv_len);
    const int64_t entries = job.scratch_stride * ckv_thread_pool_size(ctx->pool);
    job.scratch = ckv_scratch_get(ctx, CKV_SCRATCH_SELECT, sizeof(uint64_t) * (size_t)entries);
    if (!job.scratch) return CKV_ERROR_OUT_OF_MEMORY;
  }
  ckv_parallel_for(ctx->pool, (int64_t)kept->batch * kept->num_heads, select_head, &job);
  return CKV_OK;
}
