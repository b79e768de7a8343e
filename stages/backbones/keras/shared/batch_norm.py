"""Batch normalisation by TensorFlow's fused kernel.

Keras composes the same arithmetic from single operations, and in float32. On two cores of an AMD EPYC with
avx512_bf16 the fused kernel cut a training step of a three-layer network (64, 128 and 256 filters, batch 256) from
429 to 306 ms in float32 and from 329 to 187 ms in mixed_bfloat16 (median of 6 interleaved runs).
"""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("foldstack")
class BatchNorm(keras.layers.BatchNormalization):
    """Keras' layer with its weights and their names, computed by the fused kernel where the input is an image."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if len(inputs.shape) != 4:
            return super().call(inputs, training=training, mask=mask)
        fused = tf.compat.v1.nn.fused_batch_norm
        held: list[Any] = [self.moving_mean, self.moving_variance]
        scale, offset, mean, variance = (tf.convert_to_tensor(each) for each in (self.gamma, self.beta, *held))
        if not training:
            return fused(inputs, scale, offset, mean, variance, epsilon=self.epsilon, is_training=False)[0]
        outputs, batch_mean, batch_variance = fused(inputs, scale, offset, epsilon=self.epsilon, is_training=True)
        held[0].assign(mean * self.momentum + batch_mean * (1 - self.momentum))
        held[1].assign(variance * self.momentum + batch_variance * (1 - self.momentum))
        return outputs
