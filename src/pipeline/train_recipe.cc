#include "pipeline/train_recipe.h"

#include "pipeline/live_teacher.h"

namespace edgewise {

Json TrainRecipe(const TrainJob& job, const Preset* preset, const TrainInputs& in,
                 const train::TrainerOptions& o) {
  Json recipe{JsonObject{}};
  recipe.Set("command", Distils(job) ? "distill" : "train");
  recipe.Set("steps", o.schedule.steps).Set("warmup", o.schedule.warmup);
  recipe.Set("schedule", train::ScheduleName(o.schedule.kind));
  recipe.Set("learning_rate", o.schedule.peak).Set("last", o.schedule.last);
  recipe.Set("batch_tokens", o.batch.tokens).Set("sequence", o.batch.sequence);
  recipe.Set("seed", o.seed);
  recipe.Set("beta1", o.beta1).Set("beta2", o.beta2).Set("weight_decay", o.weight_decay);
  recipe.Set("moments", train::MomentFormatName(o.moments));
  recipe.Set("clip", o.clip).Set("keep_zeros", o.network.keep_zeros);
  recipe.Set("precision", train::PrecisionName(o.precision));
  recipe.Set("to", preset != nullptr ? preset->name : "kept").Set("qat", !job.qat.empty());
  if (job.format.format) recipe.Set("format", train::DatasetFormatName(*job.format.format));
  recipe.Set("learn_scales", job.learn_scales).Set("layerwise", job.layerwise);
  if (job.layerwise) return recipe;
  recipe.Set("scales_only", job.scales_only);
  recipe.Set("accumulation", o.accumulation).Set("ema", o.ema);
  recipe.Set("evaluate_every", o.evaluate_every).Set("patience", o.patience);
  recipe.Set("dropout", static_cast<double>(o.network.dropout));
  if (const train::LoraOptions& lora = o.network.lora; lora.rank > 0) {
    recipe.Set("lora_rank", lora.rank).Set("lora_alpha", lora.alpha);
    recipe.Set("lora_dropout", lora.dropout);
    recipe.Set("lora_targets", JsonArray(lora.targets.begin(), lora.targets.end()));
  }
  if (!Distils(job)) return recipe;
  recipe.Set("teacher_engine",
             in.teacher ? TeacherEngineName(TeacherOptionsOf(job, o)) : in.cache->info().engine);
  if (in.cache) recipe.Set("cache_top", in.cache->info().shape.k);
  recipe.Set("divergence", train::DivergenceName(job.loss.divergence));
  recipe.Set("alpha", job.loss.alpha).Set("temperature", job.loss.temperature);
  recipe.Set("beta", job.loss.beta);
  if (job.match.hidden > 0) recipe.Set("match_hidden", job.match.hidden);
  if (job.match.attention > 0) recipe.Set("match_attention", job.match.attention);
  if (const train::OnPolicyOptions& written = o.on_policy; written.fraction > 0) {
    recipe.Set("on_policy", written.fraction).Set("on_policy_tokens", written.tokens);
  }
  return recipe;
}

}  // namespace edgewise
